"""The published numbers of SPoT (Vu et al. 2022), through `import` and `analyse` as a user runs them.

The tables are CSV files in a folder: SPOTON_TEST_PAPER, or `../shared/paper` beside the repository; without it these
tests are skipped.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from spoton.study.analysis.correlation import correlate
from tests.cli.conftest import Run, run
from tests.study.made import points_of

__all__ = ["run"]  # the fixture

ROOT = Path(__file__).resolve().parents[2]
PAPER = Path(os.environ.get("SPOTON_TEST_PAPER") or ROOT / "../shared/paper")

pytestmark = pytest.mark.skipif(
    not PAPER.is_dir(), reason="no folder with the paper's tables: set SPOTON_TEST_PAPER to one"
)


def table(name: str) -> list[dict[str, str]]:
    with (PAPER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def analysis(run: Run, tmp_path: Path) -> Any:
    imported = run(
        "study", "import", PAPER / "table6_transfer.csv", "--seeds-averaged", 3, "--out", tmp_path, "--json"
    )
    assert imported.code == 0
    assert len(imported.document["sources"]) == 16 and len(imported.document["targets"]) == 10
    done = run("study", "analyse", tmp_path, "--json")
    assert done.code == 0
    return done.document


def test_table_7_follows_from_table_6(analysis: Any) -> None:
    found = {(one["source"], one["target"]): one["error_reduction"] for one in analysis["transfer"]["pairs"]}
    assert len(found) == 160
    published = table("table7_relative_error_reduction")
    assert len(published) == 30
    for row in published:
        assert found[row["source"], row["target"]] == pytest.approx(
            float(row["relative_error_reduction"]), abs=0.1
        )
    above = analysis["transfer"]["above_10"]
    assert len(above) == 30
    assert {(one["source"], one["target"]) for one in above} == {
        (r["source"], r["target"]) for r in published
    }
    assert [one["error_reduction"] for one in above] == sorted(
        (one["error_reduction"] for one in above), reverse=True
    )


def test_mnli_is_the_best_source_on_average(analysis: Any) -> None:
    best = analysis["transfer"]["mean_error_reduction"][0]
    assert best["source"] == "MNLI" and best["targets"] == 10


def test_seeds_and_deviations_are_those_of_the_table(analysis: Any) -> None:
    given = {(row["source"], row["target"]): row for row in table("table6_transfer")}
    for one in analysis["transfer"]["pairs"]:
        row = given[one["source"], one["target"]]
        assert (one["mean"], one["std"], one["n"]) == (float(row["mean"]), float(row["std"]), 3)


def test_the_oracle_of_the_means_is_near_that_of_table_3(analysis: Any) -> None:
    """Table 3 takes the best of 48 prompts for each seed, here only their means over seeds are known: a bit less."""
    oracle = next(row for row in analysis["retrieval"]["rows"] if row["method"] == "oracle")
    published = next(row for row in table("table3_retrieval") if row["method"] == "ORACLE")
    baseline = next(row for row in table("table3_retrieval") if row["method"] == "BASELINE")
    assert 0 < float(published["absolute_change"]) - oracle["absolute"]["mean"] < 1.5
    rows = {row["method"]: row for row in analysis["retrieval"]["rows"]}
    assert rows["baseline"]["average"]["mean"] == pytest.approx(float(baseline["average"]), abs=0.05)


def test_what_the_table_cannot_tell_is_said_to_be_unknown(analysis: Any) -> None:
    assert [one["answer"] for one in analysis["verdicts"]] == ["yes", "unknown", "unknown", "unknown"]
    assert analysis["similarity"] == {} and analysis["correlation"] == {}
    assert analysis["study"]["reported"] == "validation" and analysis["study"]["cells"]["missing"] == []


def test_p_values_of_figure_5_follow_from_r_and_n() -> None:
    rows = table("figure5_correlation")
    assert len(rows) == 10
    for row in rows:
        r, n, p = float(row["pearson_r"]), int(row["n"]), float(row["p_value"])
        rounding = 0.5 * 10 ** -len(row["p_value"].partition(".")[2]) if p > 1e-6 else 0.0
        low, high = sorted(
            correlate(row["target"], points_of(abs(r) + step, n)).pearson_p for step in (-0.0005, 0.0005)
        )  # r is rounded as well
        assert low - rounding <= p <= high + rounding, row
