"""The optimizers that a recipe can name: torch's AdamW, and Adafactor with the semantics of the reference code.

The reference (T5X, as used for prompt tuning) differs from the common PyTorch ports where it matters for a prompt:
weight decay is not multiplied by the learning rate, the second moment is never factored, updates are clipped by their
RMS over the whole matrix, and nothing is scaled by the size of the parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spoton.tuning.recipe import TuningRecipe


class Adafactor(torch.optim.Optimizer):
    """Adafactor as the reference prompt tuning runs it (Shazeer & Stern 2018, with the settings of Vu et al. 2022).

    With g the gradient at step i = 0, 1, ...::

        beta2 = 1 - (i + 1) ** -0.8
        v     = beta2 * v + (1 - beta2) * (g * g + 1e-30)
        y     = g / sqrt(v);  y /= max(1, RMS(y))
        p     = (1 - weight_decay) * p - learning_rate * y

    Args:
        params: Prompt matrices `[P, D]`.
        lr: Learning rate, constant.
        weight_decay: Share of the parameter lost every step, independent of `lr`.
        scaling: Whether the learning rate is multiplied by `max(0.001, RMS(p))`, as in fine-tuning T5 (Raffel et al.
            2020, section 3.1.2; the settings of T5X). Prompts are tuned without.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        scaling: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "scaling": scaling})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes one step; there is no closure (`override`: torch's overloads ask for a float with one)."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state: dict[str, Any] = self.state[p]
                if not state:
                    state["step"], state["v"] = torch.tensor(0.0), torch.zeros_like(p)
                beta2 = 1.0 - (float(state["step"]) + 1.0) ** -0.8
                state["v"].mul_(beta2).add_(p.grad.square() + 1e-30, alpha=1.0 - beta2)
                update = p.grad / state["v"].sqrt()
                update /= max(1.0, float(update.square().mean().sqrt()))
                rate = group["lr"]
                if group["scaling"]:
                    rate *= max(1e-3, float(p.square().mean().sqrt()))
                p.mul_(1.0 - group["weight_decay"]).add_(update, alpha=-rate)
                state["step"] += 1.0


def make_optimizer(
    recipe: TuningRecipe, parameters: Sequence[Tensor], rate: float, *, scaling: bool = False
) -> torch.optim.Optimizer:
    """Returns the recipe's optimizer.

    torch's AdamW multiplies weight decay by the learning rate of the step. So weight decay is divided by that rate
    first, here and in `set_rate`: in a recipe it means the same for both optimizers.

    Args:
        recipe: How to tune.
        parameters: The tensors to tune: those of a prompt, such as `[P, D]`, or all weights of a model, `[...]`.
        rate: The highest learning rate of the schedule.
        scaling: Whether Adafactor scales the rate by the size of each tensor, as for all weights of a model.
    """
    if recipe.optimizer == "adafactor":
        return Adafactor(parameters, lr=rate, weight_decay=recipe.weight_decay, scaling=scaling)
    # One pass over many weights instead of one per operation: five times as fast on a CPU. On a GPU it is one launch,
    # which also counts for a single prompt when many are tuned together.
    kinds = {tensor.device.type for tensor in parameters}
    fused = kinds == {"cuda"} or (len(parameters) > 8 and kinds <= {"cpu", "cuda"})
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=recipe.weight_decay / rate, fused=fused)


def rate_factor(recipe: TuningRecipe, step: int) -> float:
    """Returns the share of the highest learning rate at a step.

    Args:
        recipe: The recipe with schedule, warm-up and steps.
        step: Number of the step, from 0.
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "constant":
        return 1.0
    left = (recipe.steps - step) / max(1, recipe.steps - recipe.warmup)
    return left if recipe.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def set_rate(optimizer: torch.optim.Optimizer, recipe: TuningRecipe, rate: float) -> None:
    """Sets the learning rate of the next step; weight decay stays that of the recipe."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if recipe.optimizer == "adamw":
            group["weight_decay"] = recipe.weight_decay / rate


def restore_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores the state of an optimizer from a checkpoint.

    Args:
        optimizer: An optimizer of the same parameters.
        tensors: By index of the parameter and name, such as `0.exp_avg`, each with the shape `[...]` of its parameter
            or a scalar `[]`; empty before the first step.

    Raises:
        ValueError: The tensors do not belong to these parameters.
    """
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place, _, what = name.partition(".")
        known = place.isdecimal() and int(place) < len(shapes)
        if not known or value.shape not in (torch.Size(), shapes[int(place)]):
            raise ValueError(f"the optimizer has nothing like {name} {list(value.shape)}")
        state.setdefault(int(place), {})[what] = value
    if state:
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
