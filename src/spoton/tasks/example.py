"""One text-to-text example."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """The model's input and the expected answer.

    A decoder-only model reads `input`, one space, then `target`: inputs that end with a cue, such as
    `"\\nSentiment:"`, are easier for it, and targets begin without a space.
    """

    input: str
    target: str
    references: tuple[str, ...] = ()
    """Every correct answer, for the metrics, where the target is not the only one."""
    question: str = ""
    """Key of examples that the metrics score as one question; empty if each example is one."""
    row: int = field(default=0, compare=False, repr=False)
    """Number of its row among the given rows of its split, from 1; 0 if unknown. Not a part of the example's value."""
