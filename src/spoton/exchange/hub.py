"""Shares a library: copies it to another place, with a model card that describes it.

The place is a folder, the URL of any file system that fsspec knows, or a repository of the Hugging Face Hub
(`hf://owner/name`), to which everything goes in one commit. On the Hub, a library is a model repository: its card has
`library_name: spoton` and the base models, and scores on Hub data sets are also written to `.eval_results/*.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import fsspec
import yaml
from huggingface_hub import (
    CommitOperationAdd,
    EvalResultEntry,
    HfApi,
    ModelCardData,
    eval_result_entries_to_yaml,
)

from spoton.errors import DataError, LibraryError, PromptError, first_line
from spoton.files import atomic_write
from spoton.hub_offline import hub_or_cache
from spoton.prompts import Entry, PromptLibrary, SoftPrompt
from spoton.prompts.card import Card
from spoton.prompts.library import SUFFIX
from spoton.prompts.urls import local_folder
from spoton.tasks.catalog import task_info

_HUB = "hf://"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Source of rows from the Hub: `hub:owner/name`, then perhaps a configuration and a revision.
_HUB_ROWS = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?:@([\w.-]+))?")
_MARK = (
    "<!-- Written by `spoton library push`, which replaces this page. Remove this line to keep your own. -->"
)
# Hub names of the models that spoton itself provides.
_BASE_MODELS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


@dataclass(frozen=True)
class Shared:
    """The result of a copy.

    Attributes:
        place: The destination.
        prompts: Names of the prompts written.
        unchanged: Names of the prompts that were already there.
        files: Every file written, relative to the place; for a pull, the names of prompts in the library.
    """

    place: str
    prompts: list[str]
    unchanged: list[str]
    files: list[str]


def push_library(
    library: PromptLibrary,
    to: str,
    *,
    names: Sequence[str] | None = None,
    license: str | None = None,
    message: str = "Prompts from spoton",
    private: bool = False,
    replace: bool = False,
) -> Shared:
    """Copies prompts to another place and writes a model card for all prompts there.

    A model card that somebody else wrote stays unchanged.

    Args:
        library: The prompts' library.
        to: Folder, URL, or `hf://owner/name`; a missing repository is created.
        names: Names of the prompts; None: all.
        license: License of the whole, as the Hub names it. None: the prompts' license, if they share one.
        message: Message of the commit on the Hub.
        private: Whether a new repository is private.
        replace: Whether to replace prompts with the same name and different content.

    Raises:
        LibraryError: A prompt does not exist, there are no prompts, a name is taken, or the place cannot be written.
        PromptError: A prompt is damaged.
    """
    chosen = _chosen(library, names)
    if to.startswith(_HUB):
        _create_repository(to, private=private)
    listing = PromptLibrary(to, readonly=True).list()
    there = {entry.name: entry for entry in listing}
    unchanged = _unchanged(chosen, there, to, set(listing.damaged), replace=replace)
    files = {f"{name}{SUFFIX}": library.get(name).to_bytes() for name in chosen if name not in unchanged}
    described = {**there, **chosen}
    files |= _eval_results(described)
    if _is_ours(to):
        files["README.md"] = model_card(described, to, license=license).encode()
    _write(to, files, message)
    pushed = [name for name in chosen if name not in unchanged]
    return Shared(to, pushed, unchanged, list(files))


def pull_library(
    source: str, library: PromptLibrary, *, names: Sequence[str] | None = None, replace: bool = False
) -> Shared:
    """Copies prompts from another place into a library. Each is checked against its checksum.

    Args:
        source: Folder, URL, or `hf://owner/name`.
        library: The destination.
        names: Names of the prompts; None: all.
        replace: Whether to replace prompts with the same name and different content.

    Raises:
        LibraryError: A prompt does not exist, there are no prompts, or a name is taken; then nothing is written.
        PromptError: A prompt is damaged.
    """
    remote = PromptLibrary(source, readonly=True)
    chosen = _chosen(remote, names)
    listing = library.list()
    own = {entry.name: entry for entry in listing}
    unchanged = _unchanged(chosen, own, library.place, set(listing.damaged), replace=replace)
    pulled = {
        name: remote.get(name) for name in chosen if name not in unchanged
    }  # all are read before any is written
    for name, prompt in pulled.items():
        library.add(prompt, name=name, replace=replace)
    return Shared(source, list(pulled), unchanged, list(pulled))


def _unchanged(
    chosen: Mapping[str, Entry],
    there: Mapping[str, Entry],
    place: object,
    damaged: Set[str],
    *,
    replace: bool,
) -> list[str]:
    """Returns the names of prompts that a place has already; refuses others of these names, damaged ones too."""
    same = [
        name for name, entry in chosen.items() if name in there and _same(name, entry.path, there[name].path)
    ]
    taken = [name for name in chosen if name in there.keys() | damaged and name not in same]
    if taken and not replace:
        raise LibraryError(
            f"The library {place} already has other prompts named {', '.join(taken)}. Name the prompts to copy without "
            "them, or give --replace."
        )
    return same


def model_card(entries: Mapping[str, Entry], place: str, *, license: str | None = None) -> str:
    """Returns the README.md of a shared library: metadata for the Hub, and a table of prompts.

    Args:
        entries: The prompts by name.
        place: Place of the library, for the commands on the card.
        license: License of the whole; None: the prompts' license, if they share one.
    """
    cards = [entry.card for entry in entries.values()]
    data = ModelCardData(
        library_name="spoton",
        base_model=sorted({name for card in cards if (name := _base_model(card))}) or None,
        datasets=sorted({name for card in cards if (name := _data_set(card))}) or None,
        tags=["soft-prompt", "prompt-tuning", *sorted({_tag(card.family) for card in cards if card.family})],
        **_license_fields(license, cards),
    )
    rows = [
        "| prompt | task | family | model | tokens | metric | validation | test | licence of the data |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(entry) for entry in entries.values()),
    ]
    return (
        f"---\n{data.to_yaml()}\n---\n\n{_MARK}\n\n# Soft prompts\n\n"
        f"{len(entries)} soft prompts for frozen language models, made with spoton. A prompt works with one "
        "model only, which it knows by its fingerprint.\n\n" + "\n".join(rows) + "\n\n## Use them\n\n"
        f"```console\n$ spoton library pull {place}\n"
        f'$ spoton predict {next(iter(entries))} "Your text."\n```\n\n'
        "Each file holds its whole provenance: `spoton library show NAME`.\n"
    )


def _chosen(library: PromptLibrary, names: Sequence[str] | None) -> dict[str, Entry]:
    entries = {entry.name: entry for entry in library.list()}
    missing = [name for name in names or () if name not in entries]
    if missing:
        raise LibraryError(
            f"{library.place} has no whole prompt named {', '.join(missing)}; it has {', '.join(entries) or 'none'}."
        )
    if not entries:
        raise LibraryError(f"{library.place} holds no prompts. Check the place, or add some first.")
    return {name: entries[name] for name in names} if names else entries


def _same(name: str, a: Path, b: Path) -> bool:
    """Returns whether two files hold the same prompt, also if an older version of spoton wrote one of them."""
    if a.read_bytes() == b.read_bytes():
        return True
    try:
        return _content(name, a) == _content(name, b)
    except PromptError:
        return False  # a damaged file is like no other; the one to copy is refused when it is read


def _content(name: str, path: Path) -> bytes:
    """Returns the content of a prompt file as a copy of that name is written."""
    prompt = SoftPrompt.load(path)
    return changed(prompt, card=prompt.card.model_copy(update={"name": name})).to_bytes()


def _create_repository(to: str, *, private: bool) -> None:
    with _hub(to) as api:
        api.create_repo(to.removeprefix(_HUB), exist_ok=True, private=private)


def _is_ours(to: str) -> bool:
    """Returns whether the model card is missing, or was written by spoton and can be rewritten."""
    try:
        remote, root = fsspec.core.url_to_fs(to)
        text = remote.cat_file(f"{root}/README.md")
    except FileNotFoundError:
        return True
    except Exception as error:  # each driver has its own errors
        raise LibraryError(f"Cannot read {to}: {error}. Check the address and your rights there.") from error
    return _MARK.encode() in text


def _write(to: str, files: Mapping[str, bytes], message: str) -> None:
    """Writes files below a place: on the Hub in one commit, elsewhere one by one with the card last."""
    folder = local_folder(to)
    if folder is not None:
        for name, content in files.items():
            atomic_write(folder / name, content)
        return
    if to.startswith(_HUB):
        with _hub(to) as api:
            operations = [CommitOperationAdd(name, content) for name, content in files.items()]
            api.create_commit(to.removeprefix(_HUB), operations, commit_message=message)
        return
    try:
        remote, root = fsspec.core.url_to_fs(to)
        for name, content in files.items():
            place = f"{root}/{name}"
            remote.makedirs(place.rpartition("/")[0], exist_ok=True)
            remote.pipe_file(place, content)
    except Exception as error:  # each driver has its own errors
        raise LibraryError(
            f"Cannot write to {to}: {error}. Check the address and your rights there."
        ) from error


@contextmanager
def _hub(to: str) -> Iterator[HfApi]:
    """Yields the Hub's client; turns any error into one message."""
    if not _HUB_ID.fullmatch(to.removeprefix(_HUB)):
        raise LibraryError(f"{to} does not name a repository; expected hf://owner/name.")
    with hub_or_cache() as unreachable:
        if unreachable:
            raise LibraryError(
                f"{to} cannot be written: {unreachable} has no address here. Check the network."
            )
        try:
            yield HfApi()
        except Exception as error:
            raise LibraryError(
                f"{to} cannot be written: {first_line(error)[:300]}. Log in with `hf auth login`, "
                "and check your rights there."
            ) from error


def _eval_results(entries: Mapping[str, Entry]) -> dict[str, bytes]:
    """Returns one `.eval_results` file per prompt with test scores on Hub rows; other data has no Hub id."""
    files = {}
    for name, entry in entries.items():
        card = entry.card
        match = _HUB_ROWS.fullmatch(card.source)
        score = card.scores.get("test", {}).get(card.metric)
        if match is None or score is None:
            continue
        data_set, config, revision = match.groups()
        result = EvalResultEntry(
            dataset_id=data_set,
            task_id=config or "default",
            value=score,
            dataset_revision=revision if revision and re.fullmatch(r"[0-9a-f]{40}", revision) else None,
            date=card.created,
            notes=f"{card.metric} in percent by {card.evaluation} on {card.splits.get('test', 0)} test rows "
            f"of spoton's splits; prompt {name} of {card.model}",
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([result]), sort_keys=False)
        files[f".eval_results/{name}.yaml"] = text.encode()
    return files


def _base_model(card: Card) -> str | None:
    """Returns the model's name on the Hub; None for a local folder or file."""
    name = _BASE_MODELS.get(card.model, card.model)
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _data_set(card: Card) -> str | None:
    """Returns the task's data set on the Hub, according to the rows or the catalog."""
    match = _HUB_ROWS.fullmatch(card.source)
    if match is not None:
        return match.group(1)
    try:
        return task_info(card.task).dataset
    except DataError:
        return None  # a user's own task


def _license_fields(license: str | None, cards: Sequence[Card]) -> dict[str, Any]:
    """Returns the license in the Hub's form: an identifier, or `other` with a name."""
    stated = {card.license for card in cards}
    name = license or (stated.pop() if len(stated) == 1 else "")
    if re.fullmatch(r"[A-Za-z0-9.+-]+", name):
        return {"license": name.lower()}
    return {"license": "other", "license_name": _tag(name) or "see-table"}


def _tag(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _row(entry: Entry) -> str:
    card = entry.card
    scores = [card.scores.get(split, {}).get(card.metric) for split in ("validation", "test")]
    cells = [
        entry.name, card.task, card.family, _base_model(card) or Path(card.model).name, str(entry.length), card.metric,
        *("" if score is None else f"{score:.1f}" for score in scores), card.license,
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
