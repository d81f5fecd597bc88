"""What a run may do to the files at its `--out`: a finished one is replaced by a finished one, and only when asked.

A prompt is finished if its record is next to it. Whoever interrupts a run that was to replace a finished prompt finds
that prompt as it was, and the unfinished one under a name of its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from spoton.errors import PromptError, SpotonError
from spoton.prompts.soft_prompt import SoftPrompt


def is_finished(out: Path) -> bool:
    """Returns whether a run has finished there: its record is written last."""
    return out.exists() and out.with_suffix(".json").exists()


def require_free(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuses to replace what a run has left, before the run and not after it.

    Args:
        out: The file of the prompt.
        overwrite: Whether it may be replaced.
        resume: Whether a prompt that is not finished may be; an interrupted run leaves one.

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
    """Saves the best prompt of an interrupted run, unless what is there is better.

    Returns:
        Where the better of the two is: `out`, or next to a finished prompt `NAME.interrupted.safetensors`.

    Raises:
        SpotonError: The file cannot be written.
    """
    place = _unfinished(out) if is_finished(out) else out
    if not _is_better_there(place, prompt):
        prompt.save(place)
    return place


def remove_unfinished(out: Path) -> None:
    """Removes what `save_unfinished` left next to a finished prompt, once another has taken its place."""
    with contextlib.suppress(OSError):
        _unfinished(out).unlink(missing_ok=True)


def _unfinished(out: Path) -> Path:
    return out.with_name(f"{out.stem}.interrupted{out.suffix}")


def _is_better_there(place: Path, prompt: SoftPrompt) -> bool:
    """Whether a file holds a prompt of the same task and model with a better validation score."""
    try:
        there = SoftPrompt.load(place)
    except PromptError:
        return False
    return _origin(there) == _origin(prompt) and _validation(there) > _validation(prompt)


def _origin(prompt: SoftPrompt) -> tuple[str, str, str]:
    return prompt.card.data_hash, prompt.card.model_fingerprint, prompt.card.metric


def _validation(prompt: SoftPrompt) -> float:
    return prompt.card.scores.get("validation", {}).get(prompt.card.metric, float("-inf"))
