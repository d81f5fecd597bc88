"""Calibration of label scores: what it removes, what it leaves, and the error it is judged by."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spoton.evaluation.calibration import (
    calibrated,
    expected_calibration_error,
    fit_calibration,
    gold_indices,
)
from spoton.prompts.card import Calibration


def sample(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a well-calibrated model for three labels, and labels drawn from its probabilities."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, 3, generator=draw)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=draw)[:, 0]


def test_a_bias_and_a_temperature_that_were_put_in_come_out() -> None:
    logits, gold = sample(4000)
    bias = torch.tensor([1.5, -0.5, -1.0])
    fitted = fit_calibration(3.0 * (logits - bias), gold)
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    assert fitted.bias == pytest.approx(bias.tolist(), abs=0.15)
    assert sum(fitted.bias) == pytest.approx(0, abs=1e-6) and fitted.rows == 4000


def test_it_lowers_the_loss_on_rows_it_has_not_seen() -> None:
    (fit, fit_gold), (new, new_gold) = sample(200, 1), sample(200, 2)
    skewed = torch.tensor([2.0, 0.0, -2.0])
    fitted = fit_calibration(4 * fit + skewed, fit_gold)
    before = functional.cross_entropy(4 * new + skewed, new_gold)
    assert functional.cross_entropy(calibrated(4 * new + skewed, fitted), new_gold) < 0.6 * before


def test_rows_known_by_heart_do_not_make_the_temperature_vanish() -> None:
    gold = torch.tensor([0, 1] * 8)
    fitted = fit_calibration(10.0 * functional.one_hot(gold, 2).float(), gold)
    assert 0.2 < fitted.temperature < 5 and all(map(math.isfinite, fitted.bias))


def test_one_row_is_enough_to_run() -> None:
    assert fit_calibration(torch.tensor([[0.0, 1.0]]), torch.tensor([1])).rows == 1


def test_without_a_calibration_scores_stay_as_they_are() -> None:
    scores, _ = sample(3)
    assert calibrated(scores, None) is scores
    shifted = calibrated(scores, Calibration(bias=[0.5, 0.0, -0.5], temperature=2.0, rows=1))
    torch.testing.assert_close(shifted, scores / 2 + torch.tensor([0.5, 0.0, -0.5]))


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    sure = torch.tensor([[0.9, 0.1]] * 10)
    assert expected_calibration_error(sure, torch.tensor([0] * 9 + [1])) == pytest.approx(0, abs=1e-4)
    assert expected_calibration_error(sure, torch.tensor([1] * 10)) == pytest.approx(90, abs=1e-4)
    logits, gold = sample(4000)
    assert expected_calibration_error(logits.softmax(dim=1), gold) < 3
    assert expected_calibration_error((4 * logits).softmax(dim=1), gold) > 8


def test_gold_indices_follow_the_labels() -> None:
    assert gold_indices(["b", "a", "b"], ["a", "b"]).tolist() == [1, 0, 1]
