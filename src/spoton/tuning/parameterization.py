"""What is tuned in place of a prompt: the prompt itself, or other numbers, often fewer, that produce it.

Every kind begins exactly at the given start, so transfer works with all of them. Each collapses into a plain matrix
`[P, D]`, which needs none of the other numbers afterwards. With S the start:

- `none`: P = S, tuned directly (Lester et al. 2021).
- `residual`: P = V + g * norm(relu(V A) B) with V = S at first, and a gain g that starts at zero (after Residual
  Prompt Tuning, Razdaibiedina et al. 2023, https://arxiv.org/abs/2305.03937, whose gain starts at one).
- `superposition`: P = S + W E with E 128 sampled rows of the vocabulary and W at zero (after SuperPos-Prompt,
  SadraeiJavaeri et al. 2024, https://arxiv.org/abs/2406.05279).
- `low_rank`: P = S + (Z G) * s + b with G a frozen Gaussian `[r, D]`, Z and b at zero and s at one (after ULPT,
  Wu et al. 2025, https://arxiv.org/abs/2502.04501).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from spoton.tuning.recipe import Reparameterization

_BOTTLENECK = 128
"""Width of the residual's hidden layer. The paper has 800 for T5-base (D = 768); narrower costs it little there."""
_VOCABULARY_ROWS = 128  # as in the paper
_RANK = 64  # the largest that the paper reports


@runtime_checkable
class Parameterized(Protocol):
    """Tensors to tune, and the prompt they make."""

    tensors: dict[str, Tensor]
    """The tensors to tune, by name, in a fixed order; leaves that need gradients."""

    def prompt(self) -> Tensor:
        """Returns the current prompt `[P, D]` of the tensors, with their gradient."""


@runtime_checkable
class Collapsible(Protocol):
    """What may be tuned in place of a prompt, other than the kinds of a recipe, such as a mixture of other prompts."""

    def identity(self) -> str:
        """Returns a hash of everything that decides what is tuned."""

    def begin(self, device: torch.device) -> Parameterized:
        """Returns the tensors before the first step."""


class Parameterization:
    """Tensors to tune, and the prompt they make.

    Args:
        kind: The kind of parameterization.
        start: `[P, D]` float32, the prompt before the first step.
        embeddings: `[V, D]` rows of the vocabulary; only `superposition` reads them.
        seed: Decides the random numbers.

    Attributes:
        tensors: The tensors to tune, by name, in a fixed order; leaves that need gradients.
    """

    def __init__(self, kind: Reparameterization, start: Tensor, embeddings: Tensor, seed: int) -> None:
        self.kind, device = kind, start.device
        draw = torch.Generator().manual_seed(seed)
        length, dim = start.shape
        self._start = start.detach().clone()
        self._fixed = torch.zeros(0)
        if kind == "none":
            tensors = {"prompt": start.detach().clone()}
        elif kind == "residual":
            tensors = {
                "prompt": start.detach().clone(),
                "down": torch.randn(dim, _BOTTLENECK, generator=draw) / dim**0.5 / _rms(start),
                "up": torch.randn(_BOTTLENECK, dim, generator=draw) / _BOTTLENECK**0.5,
                "gain": torch.zeros(dim),
            }
        elif kind == "superposition":
            chosen = torch.randperm(len(embeddings), generator=draw)[:_VOCABULARY_ROWS]
            self._fixed = embeddings[chosen].float().to(device)
            tensors = {"weights": torch.zeros(length, len(chosen))}
        else:
            self._fixed = (torch.randn(_RANK, dim, generator=draw) / _RANK**0.5).to(device)
            tensors = {
                "code": torch.zeros(length, _RANK),
                "scale": torch.ones(dim),
                "shift": torch.zeros(dim),
            }
        self.tensors = {name: tensor.to(device).requires_grad_() for name, tensor in tensors.items()}

    def prompt(self) -> Tensor:
        """Returns the current prompt of the tensors: `[P, D]`, with their gradient."""
        own = self.tensors
        if self.kind == "none":
            return own["prompt"]
        if self.kind == "residual":
            hidden = functional.relu(own["prompt"] @ own["down"]) @ own["up"]
            return own["prompt"] + own["gain"] * functional.layer_norm(hidden, hidden.shape[-1:])
        if self.kind == "superposition":
            return self._start + own["weights"] @ self._fixed
        return self._start + (own["code"] @ self._fixed) * own["scale"] + own["shift"]


def _rms(matrix: Tensor) -> float:
    """Returns the root mean square, so that the residual's hidden layer sees rows of unit scale."""
    return float(matrix.square().mean().sqrt().clamp(min=1e-6))
