"""`spoton export` and `spoton import`: prompts to and from other systems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spoton.cli.command import command
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Json, Library, ModelOptions
from spoton.cli.output import emit, facts, note, quiet_stdout

if TYPE_CHECKING:
    from spoton.exchange import ForeignPrompt

app = typer.Typer()

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace --out, or files in it, if it exists and is not empty.")
]


@command(
    app,
    "spoton export reviews.safetensors --to peft --out reviews-adapter",
    "spoton export movie_sentiment product_sentiment --to gguf --out sentiment.gguf",
    'spoton export reviews.safetensors --to vllm --text "A joy." --out body.json',
)
def export(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="Prompt files, or names in a library.")
    ],
    to: Annotated[
        Literal["peft", "t5x", "openprompt", "tgis", "vllm", "baked", "gguf"],
        typer.Option("--to", help="The system that will read them."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File or folder to write: a folder for several prompts, except that gguf is always one file."
        ),
    ],
    model: ModelOptions,
    text: Annotated[str | None, typer.Option(help="vllm: the text of the request.")] = None,
    overwrite: Overwrite = False,
    library: Library = None,
    json: Json = False,
) -> None:
    """Write prompts in the format of another system."""
    from spoton.exchange.formats import NEED_NO_MODEL, export_prompts, require_text

    require_text(to, text)
    _require_free(out, overwrite=overwrite)
    found = [find_prompt(prompt, library) for prompt in prompts]
    frozen = None if to in NEED_NO_MODEL else model.load(found[0])
    with quiet_stdout():
        exported = export_prompts(found, to, out, model=frozen, text=text)
    for said in exported.notes:
        note(said)
    document = {
        "format": to,
        "paths": exported.paths,
        "prompts": [prompt.card.name for prompt in found],
        "notes": exported.notes,
    }
    emit(document, "\n".join(f"Wrote {path}" for path in exported.paths), as_json=json)


@command(
    app,
    "spoton import sst2.npy --from t5x --model google/t5-base-lm-adapt --task sst2 --out sst2.safetensors",
    "spoton import reviews-adapter --from peft --labels negative,positive --out reviews.safetensors",
    name="import",
)
def import_prompt(
    path: Annotated[Path, typer.Argument(help="File or folder of the other system.")],
    origin: Annotated[
        Literal["peft", "t5x", "openprompt", "tgis"],
        typer.Option("--from", help="The system that wrote it."),
    ],
    out: Annotated[Path, typer.Option(help="Prompt file to write (.safetensors).")],
    model: ModelOptions,
    name: Annotated[str | None, typer.Option(help="Name of the prompt. Default: the file's.")] = None,
    task: Annotated[str | None, typer.Option(help="The task it was tuned on. Default: its name.")] = None,
    family: Annotated[str | None, typer.Option(help="Kind of the task.")] = None,
    template: Annotated[str | None, typer.Option(help="Jinja template of the task's inputs.")] = None,
    labels: Annotated[str | None, typer.Option(help="Label words of the task, separated by commas.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the prompt.")] = None,
    model_fingerprint: Annotated[
        str | None,
        typer.Option(
            help="Fingerprint of the model, if the model is not available. Default: the model is loaded."
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Convert a prompt of another system to a prompt file."""
    from spoton.errors import PromptError
    from spoton.exchange import read_foreign

    if out.suffix != ".safetensors":
        raise PromptError(f"{out} does not end in .safetensors, as prompt files do. Choose a name that does.")
    _require_free(out, overwrite=overwrite)
    foreign = read_foreign(path, origin)
    given = {
        "name": name,
        "task": task,
        "family": family,
        "template": template,
        "labels": None if labels is None else _label_words(labels, task or name or out.stem),
        "license": license,
    }
    card: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    card.setdefault("name", foreign.facts.get("name") or out.stem)
    card.setdefault("task", foreign.facts.get("task") or card["name"])
    if "labels" in card:
        foreign, lost = foreign.with_labels(card["labels"])
        if lost:
            note(lost)
    prompt = foreign.to_prompt(**card, **_model_of(foreign, model, model_fingerprint))
    prompt.save(out)
    document = {
        "prompt": out,
        "length": prompt.length,
        "dim": prompt.dim,
        "card": prompt.card.model_dump(mode="json"),
    }
    shown = [
        ("prompt", out),
        ("shape", f"{prompt.length} tokens x {prompt.dim}"),
        ("model", prompt.card.model),
    ]
    emit(document, facts(shown), as_json=json)


def _require_free(out: Path, *, overwrite: bool) -> None:
    """Refuses a file, or a folder with files in it, which may be a tuned prompt, data or a model."""
    from spoton.errors import SpotonError

    is_taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if is_taken and not overwrite:
        what = "has files in it" if out.is_dir() else "exists"
        raise SpotonError(
            f"{out} {what}. Choose another --out, or give --overwrite to replace what is there."
        )


def _label_words(labels: str, task: str) -> list[str]:
    """Returns the label words of `--labels`, read as by the commands that read data.

    Raises:
        DataError: They cannot be labels of a task.
    """
    from spoton.tasks import DataSpec
    from spoton.tasks.task import require_label_words

    words = DataSpec.of(None, {"labels": labels}).labels
    found: list[str] = [words] if isinstance(words, str) else list(words or ())
    require_label_words(found, task)
    return found


def _model_of(foreign: ForeignPrompt, model: ModelOptions, fingerprint: str | None) -> dict[str, str]:
    """Returns the model and its fingerprint for the card: as given, from the file, or from the loaded model."""
    from spoton.errors import PromptError

    named = model.model or foreign.facts.get("model")
    if named is None:
        raise PromptError("The file does not say which model the prompt belongs to. Give it (--model).")
    if fingerprint is not None:
        return {"model": named, "model_fingerprint": fingerprint}
    if model.model is None and "model_fingerprint" in foreign.facts:
        return {}
    frozen = replace(model, model=named).load()
    if frozen.dim != foreign.value.shape[1]:
        raise PromptError(
            f"The prompt has rows of {foreign.value.shape[1]} numbers and {named} has embeddings of {frozen.dim}, so "
            "they do not belong together. Give the prompt's model (--model)."
        )
    return {"model": frozen.name, "model_fingerprint": frozen.fingerprint}
