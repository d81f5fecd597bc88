"""Joint answers of several prompts: they average log-probabilities of labels, or vote on texts.

Lester et al. 2021 (https://arxiv.org/abs/2104.08691, section 6) let prompts of several seeds vote. If labels have
probabilities, the mean of the log-probabilities is used instead: a vote that reflects each prompt's confidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from spoton.evaluation.calibration import calibrated
from spoton.prompts.card import Calibration, Card
from spoton.shapes import Float


def pooled(
    scores: Float[Tensor, "K N C"], calibrations: Sequence[Calibration | None]
) -> Float[Tensor, "N C"]:
    """Returns the mean over prompts of the labels' log-probabilities: `[N, C]`.

    Args:
        scores: `[K, N, C]` label scores of each prompt.
        calibrations: The calibration of each prompt, applied first.
    """
    each = [
        calibrated(own, fitted).log_softmax(dim=-1) for own, fitted in zip(scores, calibrations, strict=True)
    ]
    return torch.stack(each).mean(dim=0)


def calibrations_of(card: Card, *, calibrate: bool = True) -> list[Calibration | None]:
    """Returns the calibration of each prompt of an ensemble, or None for all of them."""
    return [member.calibration if calibrate else None for member in card.members]


_Answer = TypeVar("_Answer", str, str | None)


def voted(answers: Sequence[Sequence[_Answer]]) -> list[_Answer]:
    """Returns the answer that most prompts gave for each row; in a tie, the one that an earlier prompt gave.

    Args:
        answers: One list per prompt, in the order of rows: texts, or labels with None for a text that is none. None
            counts only if no prompt gave a label.
    """
    found = []
    for row in zip(*answers, strict=True):
        given = [answer for answer in row if answer is not None]
        found.append(Counter(given or row).most_common(1)[0][0])
    return found
