"""The choices of sources that are replayed on the committed study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.pages import marks
from experiments.retrieval_reasons import PART, SIMILARITY, Reasons, over_seeds, standard, table
from spoton.study.analysis.analyse import analyse
from spoton.study.results.collect import collect
from tests.acceptance.pages import CHECKOUT

STUDY = CHECKOUT / "docs" / "studies" / "eighteen_sources"


@pytest.fixture(scope="module")
def reasons() -> Reasons:
    return Reasons(analyse(collect(STUDY)), STUDY)


def test_the_page_has_the_table_of_the_cells(reasons: Reasons) -> None:
    begin, end = marks(PART)
    assert f"{begin}\n\n{table(reasons)}\n\n{end}" in (STUDY / "README.md").read_text()


def test_the_studys_own_choices_are_those_of_its_analysis(reasons: Reasons) -> None:
    by_keys, by_validation = [one for one in reasons.all() if one.reason == "as it is"]
    keys = reasons.analysis.row("best-of-top-k", SIMILARITY, 3)
    validation = reasons.analysis.row("best-by-validation")
    assert keys is not None and validation is not None
    for row, cell in ((keys, list(by_keys.cells())[1]), (validation, list(by_validation.cells())[-1])):
        assert cell == f"{row.absolute.mean:+.1f} ± {row.absolute.std:.1f}, {100 * row.kept:.0f} %"


def test_a_sources_record_leaves_out_the_target_it_is_used_for(reasons: Reasons) -> None:
    prior = next(one for one in reasons.all() if one.name == "mean gain over the other targets")
    gains = reasons.choices.reported - reasons.choices.scratch
    expected = np.nanmean(np.delete(gains[4], 2, axis=0))
    assert prior.choices.similarity[SIMILARITY][4, 2] == pytest.approx([expected] * 3)


def test_means_over_seeds_and_standard_values() -> None:
    values = np.array([[[1.0, 3.0]], [[5.0, np.nan]], [[np.nan, np.nan]]])
    np.testing.assert_array_equal(over_seeds(values)[:, 0], [[2, 2], [5, 5], [np.nan, np.nan]])
    np.testing.assert_allclose(standard(values[..., :1])[:2, 0, 0], [-1, 1])


def test_finished_prompts_are_read_from_the_folder(reasons: Reasons, tmp_path: Path) -> None:
    """Without its prompts a study has no such ranking: it fails instead of ranking by something else."""
    with pytest.raises(KeyError):
        (tmp_path / "prompts").mkdir()
        (tmp_path / "prompts" / "scratch.cb.0.f7ee437a9371.safetensors").write_bytes(
            next((STUDY / "prompts").glob("scratch.cb.0.*")).read_bytes()
        )
        list(Reasons(reasons.analysis, tmp_path).all())
