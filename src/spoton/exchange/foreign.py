"""A prompt as another system keeps it: a matrix, and whatever that system knows of where it came from.

Most formats hold nothing but numbers. Which task, which model and which labels belong to them has to be said by
whoever imports them; `to_prompt` puts both together.
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
    """What was read from a file of another system.

    Attributes:
        value: `[P, D]` float32.
        facts: Fields of `Card` that the file states, such as `model`; all of them in a file that spoton exported.
    """

    value: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_prompt(self, **card: Any) -> SoftPrompt:
        """Gives the matrix a card.

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
