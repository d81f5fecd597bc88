"""The formats by name: which ones can be written and read, and what each needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from spoton.errors import PromptError
from spoton.exchange.foreign import ForeignPrompt
from spoton.files import atomic_write
from spoton.models.frozen import FrozenModel
from spoton.prompts.soft_prompt import SoftPrompt

ExportFormat = Literal["peft", "t5x", "openprompt", "tgis", "vllm", "baked", "gguf"]
ImportFormat = Literal["peft", "t5x", "openprompt", "tgis"]

NEED_NO_MODEL: frozenset[str] = frozenset({"t5x", "openprompt"})
_ALL_IN_ONE = ("baked", "gguf")
_SUFFIXES = {"t5x": ".npy", "openprompt": ".pt", "vllm": ".json"}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        format: The format.
        paths: The files or folders, one per prompt, or one for all where a checkpoint holds them all.
        notes: Notes for the user.
    """

    format: ExportFormat
    paths: list[Path]
    notes: list[str] = field(default_factory=list)


def export_prompts(
    prompts: Sequence[SoftPrompt],
    format: ExportFormat,
    out: Path,
    *,
    model: FrozenModel | None = None,
    text: str | None = None,
) -> Exported:
    """Writes prompts for another system.

    Args:
        prompts: At least one.
        format: Name of the format.
        out: The file or folder to write. For several prompts, a folder with one entry each, named after the prompt,
            unless one checkpoint holds them all.
        model: The frozen model; not needed for formats in `NEED_NO_MODEL`.
        text: For `vllm`: the text of the request.

    Raises:
        PromptError: A prompt belongs to another model, or something that the format needs is missing.
        ModelError: The format does not support the model.
        SpotonError: A file cannot be written.
    """
    if format not in get_args(ExportFormat):
        raise PromptError(
            f"There is no format {format!r} to export to; there is: {', '.join(get_args(ExportFormat))}."
        )
    if format not in NEED_NO_MODEL and model is None:
        raise PromptError(f"An export to {format} needs the frozen model. Give it.")
    require_text(format, text)
    for prompt in prompts:  # all, before the first of them is written
        prompt.require_single("an export")
        if model is not None and format not in NEED_NO_MODEL:
            prompt.require_model(model.fingerprints, model.name)
    if format in _ALL_IN_ONE:
        assert model is not None
        return _in_one_checkpoint(prompts, format, out, model)
    names = [prompt.card.name for prompt in prompts]
    if len(set(names)) != len(names):
        raise PromptError(f"Two of the prompts {', '.join(names)} have one name. Export them one by one.")
    places = [out] if len(prompts) == 1 else [out / f"{name}{_SUFFIXES.get(format, '')}" for name in names]
    paths = [
        _export_one(prompt, format, place, model, text) for prompt, place in zip(prompts, places, strict=True)
    ]
    return Exported(format, paths)


def require_text(format: ExportFormat, text: str | None) -> None:
    """Checks that there is a text exactly for the format that holds one.

    Raises:
        PromptError: It is missing, or would be ignored.
    """
    if format == "vllm" and text is None:
        raise PromptError("A request for vllm needs a text (--text): it holds prompt and text, embedded.")
    if format != "vllm" and text is not None:
        raise PromptError(
            f"A text (--text) is a part of a request for vllm; an export to {format} holds the prompt alone. "
            "Leave it out."
        )


def read_foreign(path: Path, format: ImportFormat) -> ForeignPrompt:
    """Reads a prompt that another system wrote.

    Raises:
        PromptError: The file is missing, damaged, or not in that format.
    """
    match format:
        case "peft":
            from spoton.exchange.peft import read_peft

            return read_peft(path)
        case "t5x":
            from spoton.exchange.t5x import load_t5x

            return ForeignPrompt(load_t5x(path), {"source": path.name})
        case "openprompt":
            from spoton.exchange.openprompt import read_openprompt

            return read_openprompt(path)
        case "tgis":
            from spoton.exchange.tgis import read_tgis

            return read_tgis(path)
    raise PromptError(
        f"There is no format {format!r} to import from; there is: {', '.join(get_args(ImportFormat))}."
    )


def _export_one(
    prompt: SoftPrompt, format: ExportFormat, out: Path, model: FrozenModel | None, text: str | None
) -> Path:
    if format == "t5x":
        from spoton.exchange.t5x import export_t5x

        return export_t5x(prompt, out)
    if format == "openprompt":
        from spoton.exchange.openprompt import export_openprompt

        return export_openprompt(prompt, out)
    assert model is not None
    if format == "peft":
        from spoton.exchange.peft import export_peft

        return export_peft(prompt, model, out)
    if format == "tgis":
        from spoton.exchange.tgis import export_tgis

        return export_tgis(prompt, out, is_encoder_decoder=model.is_encoder_decoder)
    from spoton.exchange.vllm import completion_body

    assert text is not None
    body = completion_body(model, prompt, text, served_model=model.name)
    atomic_write(out, (json.dumps(body) + "\n").encode())
    return out


def _in_one_checkpoint(
    prompts: Sequence[SoftPrompt], format: ExportFormat, out: Path, model: FrozenModel
) -> Exported:
    from spoton.exchange.baked import bake

    baked = bake(model, prompts)
    if format == "baked":
        path = baked.save(out)
    else:
        from spoton.exchange.gguf import export_gguf

        path = export_gguf(baked, out)
    return Exported(format, [path], baked.notes)
