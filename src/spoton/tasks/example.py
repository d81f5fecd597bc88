"""One text-to-text example."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """What the model is given and what it should answer.

    A decoder-only model reads `input`, one space, then `target`: inputs that end with a cue, such as
    `"\\nSentiment:"`, are easier for it, and targets begin without a space.
    """

    input: str
    target: str
    references: tuple[str, ...] = ()
    """What the metrics compare with, where that is not the target alone: every right answer."""
    question: str = ""
    """Key of what the metrics score as one question; empty if each example is one."""
