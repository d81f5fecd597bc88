"""One start with learned weights: the sources' mixture and a residual prompt are tuned together.

P = sum over k of w_k P_k + d, with w in proportion to similarity and d at zero at first; collapsed into P wherever it
is evaluated or kept. LoRAHub (Huang et al. 2023, https://arxiv.org/abs/2307.13269) learns such weights without
gradients; here gradients reach them through the engine. The weights have their own learning rate: w = w_0 + r u with u
tuned at the recipe's rate. Under AdamW and Adafactor, whose steps do not depend on the scale of a gradient, that is a
rate r times as high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoton.files import sha256_of_text
from spoton.prompts.initial import from_prompt
from spoton.shapes import Float
from spoton.transfer.combining.start import Start
from spoton.transfer.combining.weighted_average import names_of, parents_of
from spoton.transfer.sources import Retrieved
from spoton.tuning.parameterization import Parameterized

WEIGHT_RATE = 5.0
"""Learning rate of the weights, in learning rates of the recipe: with the default of 0.01 a weight moves by 0.05 per
step. Reasoned, not measured."""


def learned_mix(retrieved: Sequence[Retrieved], length: int) -> list[Start]:
    """Returns the mixture, as one start.

    A source that is not similar begins at weight zero, and may gain some; if none is similar, all begin with equal
    weights.
    """
    similar = torch.tensor([max(0.0, one.similarity) for one in retrieved])
    begin = similar / similar.sum() if similar.any() else torch.full_like(similar, 1 / len(similar))
    mix = Mix(torch.stack([from_prompt(one.prompt.value, length) for one in retrieved]), begin)
    return [Start(names_of(retrieved), mix.value(), parents_of(retrieved, begin.tolist()), mix)]


@dataclass(frozen=True)
class Mix:
    """Sources and their initial weights.

    Attributes:
        sources: `[K, P, D]`.
        weights: `[K]`.
        rate: Learning rate of the weights, in learning rates of the residual.
    """

    sources: Float[Tensor, "K P D"]
    weights: Float[Tensor, " K"]
    rate: float = WEIGHT_RATE

    def identity(self) -> str:
        """Returns a hash of everything that decides what is tuned."""
        return sha256_of_text(
            ["mix", str(self.rate), str(self.weights.tolist()), str(self.sources.tolist())]
        )[:16]

    def value(self) -> Float[Tensor, "P D"]:
        """Returns the mixture `[P, D]` before the first step."""
        return torch.einsum("k,kpd->pd", self.weights, self.sources)

    def begin(self, device: torch.device) -> Parameterized:
        """Returns the tensors to tune."""
        return _Mixing(self, device)


class _Mixing:
    """See `Parameterized`."""

    def __init__(self, mix: Mix, device: torch.device) -> None:
        self._sources, self._weights = mix.sources.to(device), mix.weights.to(device)
        self._rate = mix.rate
        self.tensors = {
            "weights": torch.zeros(len(mix.weights), device=device, requires_grad=True),
            "residual": torch.zeros(mix.sources.shape[1:], device=device, requires_grad=True),
        }

    def prompt(self) -> Float[Tensor, "P D"]:
        """See `Parameterized`."""
        weights = self._weights + self._rate * self.tensors["weights"]
        return torch.einsum("k,kpd->pd", weights, self._sources) + self.tensors["residual"]
