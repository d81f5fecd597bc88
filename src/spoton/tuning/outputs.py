"""What a run may do to the files at its `--out`: only a finished prompt replaces a finished one, and only on request.

A prompt is finished if its record is next to it. An interrupted run that was to replace a finished prompt leaves that
prompt unchanged, and saves the unfinished one under another name.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from spoton.errors import PromptError, SpotonError
from spoton.prompts.soft_prompt import SoftPrompt


def is_finished(out: Path) -> bool:
    """Returns whether a run has finished there; its record is written last."""
    return out.exists() and out.with_suffix(".json").exists()


def require_free(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuses, before a run, to replace what an earlier run left.

    Args:
        out: The file of the prompt.
        overwrite: Whether it may be replaced.
        resume: Whether an unfinished prompt may be replaced; an interrupted run leaves one.

    Raises:
        SpotonError: There is a prompt that this run may not replace.
    """
    if overwrite or not out.exists() or (resume and not is_finished(out)):
        return
    raise SpotonError(
        f"{out} exists{' and is finished' if is_finished(out) else ''}. Choose another --out, or give --overwrite to "
        "replace it when the new one is finished."
    )


def save_unfinished(prompt: SoftPrompt, out: Path) -> Path:
    """Saves the best prompt of an interrupted run, unless the file there is better.

    Returns:
        The place of the better one: `out`, or `NAME.interrupted.safetensors` next to a finished prompt.

    Raises:
        SpotonError: The file cannot be written.
    """
    place = _unfinished(out) if is_finished(out) else out
    if not _is_better_there(place, prompt):
        prompt.save(place)
    return place


def remove_unfinished(out: Path) -> None:
    """Removes what `save_unfinished` left next to a finished prompt, once another has replaced it."""
    with contextlib.suppress(OSError):
        _unfinished(out).unlink(missing_ok=True)


def _unfinished(out: Path) -> Path:
    return out.with_name(f"{out.stem}.interrupted{out.suffix}")


def _is_better_there(place: Path, prompt: SoftPrompt) -> bool:
    """Returns whether a file holds a prompt of the same task and model with a better validation score."""
    try:
        there = SoftPrompt.load(place)
    except PromptError:
        return False
    return _origin(there) == _origin(prompt) and _validation(there) > _validation(prompt)


def _origin(prompt: SoftPrompt) -> tuple[str, str, str]:
    return prompt.card.data_hash, prompt.card.model_fingerprint, prompt.card.metric


def _validation(prompt: SoftPrompt) -> float:
    return prompt.card.scores.get("validation", {}).get(prompt.card.metric, float("-inf"))
