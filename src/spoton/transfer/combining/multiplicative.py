"""A single start: a prompt that the sources share, times the target's own rank-one mask.

P_k = P* o (u_k v_k^T), with P* `[P, D]` shared by the sources. The target starts at P* and the mean of their u and v,
and all three are tuned, u and v at their own rate (MPT, Wang et al. 2023, https://arxiv.org/abs/2303.02861, section 3).
MPT distils P* from teachers on the sources' rows; here it is fitted to the sources' prompts by alternating least
squares, which needs no rows. It is collapsed into P wherever it is evaluated or kept.
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

MASK_RATE = 4 / 3
"""Learning rate of u and v in learning rates of P*: 0.4 and 0.3 in MPT."""
_ROUNDS = 50


def multiplicative(retrieved: Sequence[Retrieved], length: int) -> list[Start]:
    """Returns the shared prompt under its mean mask, as one start; all sources count equally."""
    stack = torch.stack([from_prompt(one.prompt.value, length) for one in retrieved])
    shared, rows, columns = factorise(stack)
    masked = Masked(shared, rows.mean(0), columns.mean(0))
    weights = [1 / len(retrieved)] * len(retrieved)
    return [Start(names_of(retrieved), masked.value(), parents_of(retrieved, weights), masked)]


def factorise(
    prompts: Float[Tensor, "K P D"],
) -> tuple[Float[Tensor, "P D"], Float[Tensor, "K P"], Float[Tensor, "K D"]]:
    """Fits P_k = P* o (u_k v_k^T) by alternating least squares, from all masks at one.

    Args:
        prompts: `[K, P, D]`.

    Returns:
        P* `[P, D]`, u `[K, P]` and v `[K, D]`.
    """
    prompts = prompts.double()
    count, length, dim = prompts.shape
    u, v = torch.ones(count, length).double(), torch.ones(count, dim).double()
    shared = prompts.mean(0)
    for _ in range(_ROUNDS):
        u = _ratio(
            torch.einsum("kpd,pd,kd->kp", prompts, shared, v), torch.einsum("pd,kd->kp", shared**2, v**2)
        )
        v = _ratio(
            torch.einsum("kpd,pd,kp->kd", prompts, shared, u), torch.einsum("pd,kp->kd", shared**2, u**2)
        )
        shared = _ratio(torch.einsum("kpd,kp,kd->pd", prompts, u, v), torch.einsum("kp,kd->pd", u**2, v**2))
    return shared.float(), u.float(), v.float()


def _ratio(products: Float[Tensor, "*S"], squares: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Returns the least squares factor, or one where it is undetermined."""
    return torch.where(squares > 0, products / squares.clamp(min=1e-30), torch.ones_like(products))


@dataclass(frozen=True)
class Masked:
    """A shared prompt and a mask.

    Attributes:
        shared: `[P, D]`.
        rows: `[P]` u.
        columns: `[D]` v.
        rate: Learning rate of the mask, in learning rates of the shared prompt.
    """

    shared: Float[Tensor, "P D"]
    rows: Float[Tensor, " P"]
    columns: Float[Tensor, " D"]
    rate: float = MASK_RATE

    def identity(self) -> str:
        """Returns a hash of everything that decides what is tuned."""
        parts = (self.shared, self.rows, self.columns)
        return sha256_of_text(["masked", str(self.rate), *(str(part.tolist()) for part in parts)])[:16]

    def value(self) -> Float[Tensor, "P D"]:
        """Returns the prompt `[P, D]` before the first step."""
        return self.shared * torch.outer(self.rows, self.columns)

    def begin(self, device: torch.device) -> Parameterized:
        """Returns the tensors to tune."""
        return _Masking(self, device)


class _Masking:
    """See `Parameterized`."""

    def __init__(self, masked: Masked, device: torch.device) -> None:
        self._rows, self._columns = masked.rows.to(device), masked.columns.to(device)
        self._rate = masked.rate
        self.tensors = {
            "shared": masked.shared.to(device).clone().requires_grad_(),
            "rows": torch.zeros_like(self._rows).requires_grad_(),
            "columns": torch.zeros_like(self._columns).requires_grad_(),
        }

    def prompt(self) -> Float[Tensor, "P D"]:
        """See `Parameterized`."""
        own = self.tensors
        rows, columns = self._rows + self._rate * own["rows"], self._columns + self._rate * own["columns"]
        return own["shared"] * torch.outer(rows, columns)
