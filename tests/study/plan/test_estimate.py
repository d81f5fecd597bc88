"""Estimates: the paper's study by published sizes, without weights, rows or a network."""

from __future__ import annotations

import pytest
import yaml

from spoton.errors import StudyError
from spoton.study.plan.estimate import USE, estimate
from spoton.study.plan.study_file import parse_study_file, preset_text


def test_the_papers_study_is_counted() -> None:
    found = estimate(parse_study_file(preset_text("spot-paper"), "paper"))
    cells = {kind: totals.cells for kind, totals in found.kinds.items()}
    # Weighted averages and mixtures: 10 targets x 3 seeds x the four k of the paper.
    assert cells == {
        "zero-shot": 10, "source": 48, "scratch": 30, "transfer": 480, "weighted-average": 120,
        "multi-task-mixture": 120,
    }  # fmt: skip
    assert found.kinds["source"].steps == 48 * 262_144
    assert found.kinds["transfer"].steps == 480 * 100_000
    assert found.kinds["multi-task-mixture"].steps == 120 * (262_144 + 100_000)
    assert found.hours()["NVIDIA A100"] == pytest.approx(found.total.flop / (312e12 * USE) / 3600)
    assert any(line.startswith("c4:") for line in found.assumed)


def test_a_token_of_t5_base_costs_what_its_weights_say() -> None:
    document = {
        "model": "google/t5-base-lm-adapt", "seeds": [0], "sources": {"tasks": []},
        "targets": {"tasks": ["cola"], "recipe": {"preset": "paper-t5", "steps": 1000}},
    }  # fmt: skip
    found = estimate(parse_study_file(yaml.safe_dump(document), "one"))
    # 85M weights read the input and the decoder's 14M of keys and values: four operations each, there and back.
    step = found.kinds["scratch"].flop / 1000
    assert step > 4 * 85e6 * 32 * (100 + 13.3)


def test_all_that_has_no_published_size_is_told_at_once() -> None:
    document = {
        "model": "some/model", "sources": {"tasks": ["a.csv"]}, "targets": {"tasks": ["b.csv", "cb"]}, "seeds": [0]
    }  # fmt: skip
    with pytest.raises(StudyError, match=r"a\.csv, b\.csv; and of the model some/model"):
        estimate(parse_study_file(yaml.safe_dump(document), "strange"))
