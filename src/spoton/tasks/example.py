"""One text-to-text example."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """What the model is given and what it should answer.

    A decoder-only model reads `input`, one space, then `target`: inputs end with a cue such as
    `"\\nSentiment:"`, and targets begin without a space.
    """

    input: str
    target: str
