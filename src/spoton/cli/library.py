"""`spoton library`: list, show, add, remove, verify, push and pull tuned prompts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import USER_ERROR, command
from spoton.cli.libraries import find_prompt, note_damaged, open_libraries, own_library
from spoton.cli.options import Json, Library, OwnLibrary, PromptSpec
from spoton.cli.output import emit, facts, quiet_stdout, table

if TYPE_CHECKING:
    from spoton.exchange.hub import Shared
    from spoton.prompts import Card, Entry

app = typer.Typer(help="List, show, add, remove, verify, push and pull tuned prompts.", no_args_is_help=True)


@command(app, "spoton library list", "spoton library list --family sentiment --json", name="list")
def list_prompts(
    text: Annotated[str, typer.Argument(help="Only prompts whose card mentions this.")] = "",
    family: Annotated[str | None, typer.Option(help="Only prompts of this family of tasks.")] = None,
    task: Annotated[str | None, typer.Option(help="Only prompts of this task.")] = None,
    library: Library = None,
    json: Json = False,
) -> None:
    """List prompts with their tasks and scores."""
    entries, damaged = [], False
    for opened in open_libraries(library):
        entries += opened.search(text, family=family, task=task)
        note_damaged(opened)
        damaged |= bool(opened.damaged)
    columns = ("name", "task", "family", "model", "P", "validation", "test", "key", "kB")
    rows = [
        (
            entry.name,
            entry.card.task,
            entry.card.family,
            entry.card.model,
            entry.length,
            _main_score(entry.card, "validation"),
            _main_score(entry.card, "test"),
            "yes" if entry.has_key else "no",
            round(entry.size_bytes / 1000),
        )
        for entry in entries
    ]
    nothing = "No prompts that can be read." if damaged else "No prompts."
    text_form = table(columns, rows, numbers=("P", "validation", "test", "kB")) if rows else nothing
    emit([_entry_document(entry) for entry in entries], text_form, as_json=json)


@command(app, "spoton library show movie_sentiment", "spoton library show reviews.safetensors --json")
def show(prompt: PromptSpec, library: Library = None, json: Json = False) -> None:
    """Show a prompt's card: task, model, recipe, scores, parents."""
    found = find_prompt(prompt, library)
    document: dict[str, Any] = {
        "length": found.length,
        "dim": found.dim,
        "has_key": found.key is not None,
        "hash": found.content_hash(),
        "card": found.card.model_dump(mode="json"),
    }
    shape = [("shape", f"{found.length} tokens x {found.dim}"), ("hash", found.content_hash())]
    emit(document, facts([*shape, *_card_facts(found.card)]), as_json=json)


@command(
    app, "spoton library add reviews.safetensors", "spoton library add p.safetensors --name reviews --replace"
)
def add(
    prompt: Annotated[Path, typer.Argument(help="The prompt file to add.")],
    name: Annotated[
        str | None, typer.Option(help="Name in the library. Default: the name on its card.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a prompt of that name.")] = False,
    library: OwnLibrary = None,
    json: Json = False,
) -> None:
    """Add a prompt file to a library."""
    path = own_library(library).add(find_prompt(str(prompt)), name=name, replace=replace)
    emit({"name": path.stem, "path": path}, f"Added {path}", as_json=json)


@command(app, "spoton library remove reviews")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the prompt in the library.")],
    library: OwnLibrary = None,
    json: Json = False,
) -> None:
    """Remove a prompt from a library."""
    opened = own_library(library)
    opened.remove(name)
    emit({"name": name, "library": opened.place}, f"Removed {name} from {opened.place}", as_json=json)


@command(app, "spoton library verify", "spoton library verify --library prompts/ --json")
def verify(library: Library = None, json: Json = False) -> None:
    """Read every prompt in full and report damaged ones. Exit code 2 if there are any."""
    checked = [(opened.place, opened.verify()) for opened in open_libraries(library)]
    document = [{"library": folder, "ok": found.ok, "damaged": found.damaged} for folder, found in checked]
    rows = [
        (name, folder, state)
        for folder, found in checked
        for name, state in (dict.fromkeys(found.ok, "ok") | found.damaged).items()
    ]
    emit(document, table(("name", "library", "state"), rows), as_json=json)
    if any(found.damaged for _, found in checked):
        raise typer.Exit(USER_ERROR)


@command(
    app,
    "spoton library push hf://owner/name",
    "spoton library push /mnt/team/prompts reviews --library prompts",
)
def push(
    to: Annotated[
        str, typer.Argument(help="Folder, URL, or hf://owner/name, which is created if it does not exist.")
    ],
    names: Annotated[list[str] | None, typer.Argument(help="Which prompts. Default: all.")] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the collection. Default: the prompts' licence, if they share one."),
    ] = None,
    message: Annotated[str, typer.Option(help="Message of the commit on the Hub.")] = "Prompts from spoton",
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite prompts of these names.")] = False,
    library: OwnLibrary = None,
    json: Json = False,
) -> None:
    """Copy prompts to another place, with a model card that lists them."""
    from spoton.exchange.hub import push_library

    with quiet_stdout():
        shared = push_library(
            open_libraries([library])[0] if library else own_library(None),
            to, names=names, license=license, message=message, private=private, replace=replace,
        )  # fmt: skip
    _emit_shared(shared, f"to {to}", as_json=json)


@command(
    app, "spoton library pull hf://owner/name", "spoton library pull s3://bucket/prompts reviews --replace"
)
def pull(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Folder, URL, or hf://owner/name.")],
    names: Annotated[list[str] | None, typer.Argument(help="Which prompts. Default: all.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite prompts of these names.")] = False,
    library: OwnLibrary = None,
    json: Json = False,
) -> None:
    """Copy prompts from another place into a library."""
    from spoton.exchange.hub import pull_library

    with quiet_stdout():
        shared = pull_library(source, own_library(library), names=names, replace=replace)
    _emit_shared(shared, f"from {source}", as_json=json)


def _emit_shared(shared: Shared, place: str, *, as_json: bool) -> None:
    text = f"{len(shared.prompts)} prompts {place}: {', '.join(shared.prompts) or 'none'}."
    if shared.unchanged:
        text += f" {len(shared.unchanged)} were there already."
    emit(asdict(shared), text, as_json=as_json)


def _main_score(card: Card, split: str) -> float | None:
    return card.scores.get(split, {}).get(card.metric)


def _entry_document(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "path": entry.path,
        "length": entry.length,
        "dim": entry.dim,
        "has_key": entry.has_key,
        "size_bytes": entry.size_bytes,
        "card": entry.card.model_dump(mode="json"),
    }


def _card_facts(card: Card) -> list[tuple[str, object]]:
    plain = {
        name: value for name, value in card.model_dump(mode="json").items() if value not in ("", None, [], {})
    }
    return [(name, _one_line(value)) for name, value in plain.items()]


def _one_line(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_one_line(part)}" for name, part in value.items())
    return value
