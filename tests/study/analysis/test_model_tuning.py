"""Model tuning next to prompts: on the same targets and seeds alone."""

from __future__ import annotations

import pytest

from spoton.study.analysis.analyse import analyse
from spoton.study.analysis.model_tuning import covers_the_study, mixture_sentence, model_tuning
from spoton.study.analysis.verdicts import verdicts
from spoton.study.results.study_results import Score, StudyResults
from tests.study.made import made


def tuned(*places: tuple[str, int]) -> StudyResults:
    """A study with model tuning on some targets and seeds."""
    scores = {"model-tuning": tuple(Score(target, None, seed, 90.0 + seed) for target, seed in places)}
    return made(extra=scores, extra_test=scores)


def test_prompts_are_scored_on_the_seeds_of_model_tuning() -> None:
    analysis = analyse(tuned(("cb", 0), ("cb", 2)))
    found = model_tuning(analysis)
    assert found is not None
    cb, rte, _ = found["targets"]
    assert (cb["model_tuning"]["mean"], cb["model_tuning"]["n"]) == (91.0, 2)
    own = analysis.choices.scratch[list(analysis.results.targets).index("cb")]
    assert cb["from_scratch"]["n"] == 2 and cb["from_scratch"]["mean"] == pytest.approx((own[0] + own[2]) / 2)
    assert (rte["model_tuning"]["mean"], rte["from_scratch"]["n"]) == (None, 3)


@pytest.mark.parametrize(
    ("places", "whole"),
    [
        ([("cb", 0)], False),
        ([(target, 0) for target in ("cb", "rte", "cr")], False),
        ([(target, seed) for target in ("cb", "rte", "cr") for seed in (0, 1, 2)], True),
    ],
)
def test_a_level_of_other_targets_or_seeds_does_not_cover_the_study(
    places: list[tuple[str, int]], whole: bool
) -> None:
    assert covers_the_study(analyse(tuned(*places))) is whole


def test_the_mixture_is_compared_on_the_runs_that_have_both() -> None:
    alone = [Score("cb", None, 0, 70.0), Score("cb", None, 1, 90.0), Score("rte", None, 0, 60.0)]
    mixed = [Score("cb", None, 0, 74.0), Score("rte", None, 0, 62.0), Score("rte", None, 1, 99.0)]
    scores = {"model-tuning": tuple(alone), "multi-task-model-tuning": tuple(mixed)}
    analysis = analyse(made(extra=scores, extra_test=scores))
    told = "Multi-task model tuning scores 68.0, model tuning with the same targets and seeds (2 runs) 65.0."
    assert mixture_sentence(analysis) == f" {told}"
    assert any(told in one.sentence for one in verdicts(analysis))
    assert mixture_sentence(analyse(tuned(("cb", 0)))) == mixture_sentence(analyse(made())) == ""


def test_no_model_was_tuned() -> None:
    assert model_tuning(analyse(made())) is None and not covers_the_study(analyse(made()))
