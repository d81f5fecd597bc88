"""A prompt in another system's format: a matrix, and whatever that system records about its origin.

Most formats hold only numbers. Whoever imports them must give the task, the model and the labels; `to_prompt` combines
both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from spoton.errors import PromptError
from spoton.prompts.card import Card
from spoton.prompts.soft_prompt import SoftPrompt


@dataclass(frozen=True, eq=False)
class ForeignPrompt:
    """A prompt read from a file of another system.

    Attributes:
        value: `[P, D]` float32.
        facts: Fields of `Card` that the file states, such as `model`; all fields for a file that spoton exported.
    """

    value: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_prompt(self, **card: Any) -> SoftPrompt:
        """Adds a card to the matrix.

        Args:
            **card: Fields of `Card`; they replace what the file states.

        Returns:
            The prompt, without a key: no other format holds an early checkpoint.

        Raises:
            PromptError: A field cannot be used, or a required one is missing.
        """
        fields = {**self.facts, **card}
        try:
            return SoftPrompt(self.value, Card.model_validate(fields))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            if first["type"] == "missing":
                raise PromptError(
                    f"The file does not say the card's {name}, which every prompt needs. Give it."
                ) from error
            raise PromptError(
                f"The card's {name} is {first['input']!r}: {first['msg']}. Correct it."
            ) from error
