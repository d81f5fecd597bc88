"""A prompt in another system's format: a matrix, and whatever that system records about its origin.

Most formats hold only numbers. Whoever imports them must give the task, the model and the labels; `to_prompt` combines
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from spoton.errors import PromptError
from spoton.fields import place, sentence
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.tasks.fill import fill


@dataclass(frozen=True, eq=False)
class ForeignPrompt:
    """A prompt read from a file of another system.

    Attributes:
        value: `[P, D]` float32.
        facts: Fields of `Card` that the file states, such as `model`; all fields for a file that spoton exported.
    """

    value: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def with_labels(self, labels: Sequence[str]) -> tuple[ForeignPrompt, str]:
        """Returns the prompt with other labels, and a note for the user, which is empty if nothing is lost.

        A calibration follows its labels to their new places. Other labels have neither calibration nor scores.
        """
        old, calibration = self.facts.get("labels"), self.facts.get("calibration")
        if old is None or list(labels) == list(old):
            return self, ""
        facts = {**self.facts, "labels": list(labels)}
        if sorted(labels) == sorted(old):
            if calibration is not None:
                bias = dict(zip(old, calibration["bias"], strict=True))
                facts["calibration"] = {**calibration, "bias": [bias[label] for label in labels]}
            return replace(self, facts=facts), ""
        lost = [name for name in ("calibration", "scores", "majority") if facts.pop(name, None)]
        note = f"The file's labels are {', '.join(old)}, so its {' and '.join(lost)} are left out."
        return replace(self, facts=facts), note if lost else ""

    def to_prompt(self, **card: Any) -> SoftPrompt:
        """Adds a card to the matrix.

        Args:
            **card: Fields of `Card`; they replace what the file states.

        Returns:
            The prompt, without a key: no other format holds an early checkpoint.

        Raises:
            PromptError: A field cannot be used, or a required one is missing.
            DataError: The template is not valid, or reads no column.
        """
        if card.get("template"):
            fill(card["template"], [])
        kept = self.with_labels(card["labels"])[0] if card.get("labels") else self
        fields = {**kept.facts, **card}
        try:
            return SoftPrompt(self.value, Card.model_validate(fields))
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "missing":
                raise PromptError(
                    f"The file does not say the card's {place(first)}, which every prompt needs. Give it."
                ) from error
            told = sentence([first], Card.model_fields, listed=False)
            raise PromptError(f"The card's {told} Correct it.") from error
