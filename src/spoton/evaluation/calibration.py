"""Calibration of label scores: a bias for each label and one temperature, fitted on rows that are never reported.

While a prompt is tuned, its preference for one label drifts from step to step. That preference is a bias, and few
numbers remove it. Prediction, evaluation and serving all turn scores into probabilities here. `score.py` computes the
scores; this file fits the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from spoton.prompts.card import Calibration
from spoton.shapes import Float, Int

ROWS = 128
"""Training rows whose label scores a calibration is fitted on; measured in docs/experiments.md."""

# Strength, in rows, of the prior that pulls biases and the logarithm of the temperature to zero. A few rows that a
# prompt knows by heart are separable, and without a prior the temperature would go to zero.
_PRIOR = 1.0
_BINS = 15  # of the expected calibration error, as in Guo et al. 2017


def calibrated(scores: Float[Tensor, "N C"], calibration: Calibration | None) -> Float[Tensor, "N C"]:
    """Returns label scores `[N, C]` with bias and temperature applied; unchanged if there is no calibration.

    Args:
        scores: `[N, C]` log-likelihood of each label after each input.
        calibration: The calibration for these labels in this order.
    """
    if calibration is None:
        return scores
    return scores / calibration.temperature + torch.tensor(calibration.bias)


def reordered(
    calibration: Calibration | None, labels: Sequence[str], wanted: Sequence[str]
) -> Calibration | None:
    """Returns a calibration for the same labels in another order; None if there is none.

    Args:
        calibration: The calibration, with a bias per label.
        labels: The labels in its order.
        wanted: The same labels in the order of the scores.
    """
    if calibration is None or list(labels) == list(wanted):
        return calibration
    bias = dict(zip(labels, calibration.bias, strict=True))
    return calibration.model_copy(update={"bias": [bias[label] for label in wanted]})


def fit_calibration(scores: Float[Tensor, "N C"], gold: Int[Tensor, " N"]) -> Calibration:
    """Fits bias and temperature by maximum a posteriori with L-BFGS (Guo et al. 2017, https://arxiv.org/abs/1706.04599,
    section 4.2, with a bias per label and a weak normal prior).

    Args:
        scores: `[N, C]` label scores of training rows.
        gold: `[N]` index of each row's correct label.
    """
    scores, rows = scores.double(), len(scores)
    bias = torch.zeros(scores.shape[1], dtype=torch.float64, requires_grad=True)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [bias, log_temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-7
    )

    def closure() -> float:
        """Returns the negative log-posterior of the rows; computes gradients."""
        with torch.enable_grad():
            optimizer.zero_grad()
            fit = functional.cross_entropy(scores * torch.exp(-log_temperature) + bias, gold, reduction="sum")
            loss = (fit + _PRIOR / 2 * (bias.square().sum() + log_temperature.square())) / rows
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    shift = bias.detach() - bias.detach().mean()  # softmax ignores a constant
    return Calibration(bias=shift.tolist(), temperature=float(log_temperature.detach().exp()), rows=rows)


def expected_calibration_error(probabilities: Float[Tensor, "N C"], gold: Int[Tensor, " N"]) -> float:
    """Returns the mean difference between confidence and accuracy in percent, over 15 confidence bins weighted by rows.

    Args:
        probabilities: `[N, C]` probabilities of the labels.
        gold: `[N]` index of each row's correct label.
    """
    confidence, answer = probabilities.max(dim=1)
    right = (answer == gold).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = [
        abs(float(right[bins == b].mean() - confidence[bins == b].double().mean())) * int((bins == b).sum())
        for b in range(_BINS)
        if (bins == b).any()
    ]
    return 100.0 * sum(gaps) / len(gold)


def gold_indices(targets: Sequence[str], labels: Sequence[str]) -> Int[Tensor, " {len(targets)}"]:
    """Returns `[N]` the index of each target among the labels."""
    place = {label: index for index, label in enumerate(labels)}
    return torch.tensor([place[target] for target in targets])
