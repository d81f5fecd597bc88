"""The parts of the benchmark that can be wrong without a model: ratios, counted products, tables."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from experiments.bench.goals import goal_rows
from experiments.bench.names import COMPILED, DOCUMENTED, EXACT, LIMIT, SMOLLM, SPOTON, TUNED
from experiments.bench.products import DecoderShape, Product, runner, unavoidable_products
from experiments.bench.ratios import disagreeing, median_seconds, pairwise_ratio
from experiments.bench.report import filled, machine_text, tables
from experiments.pages import marks

BEGIN, END = marks("bench")
TINY = DecoderShape(layers=2, dim=4, heads=2, kv_heads=1, head_dim=2, feed_forward=6, vocabulary=10)


def rounds(**walls: list[float]) -> list[dict[str, dict[str, float]]]:
    return [
        {name: {"wall": wall, "cpu": 2 * wall} for name, wall in zip(walls, row, strict=True)}
        for row in zip(*walls.values(), strict=True)
    ]


def result() -> dict[str, Any]:
    times = [
        {
            DOCUMENTED: {"wall": 10.0 * slow, "cpu": 20.0},
            TUNED: {"wall": 4.0 * slow, "cpu": 8.0},
            SPOTON: {"wall": 1.0 * slow, "cpu": 2.0},
            LIMIT: {"wall": 0.5 * slow, "cpu": 1.0},
        }
        for slow in (1.0, 3.0)
    ]
    return {
        "date": "2026-01-31",
        "machine": {
            "processor": "Some CPU", "flags": ["avx2"], "cores": 2, "threads": 2, "memory_gb": 8.0,
            "system": "Linux", "allocator": "glibc, freed memory kept", "load_before": 0.1,
            "versions": {"python": "3.11.9", "torch": "2.13.0"},
        },
        "texts": {"task": "t", "examples": 9, "tokens_median": 28, "tokens_mean": 28.5, "tokens_longest": 72},
        "configurations": [
            {
                "model": "m", "work": "training", "length": 100, "batch_size": 16, "rounds": times,
                "losses": {DOCUMENTED: 1.0, TUNED: 1.01, SPOTON: 1.0, EXACT: 1.00003},
                "dtypes": {DOCUMENTED: "float32", TUNED: "bfloat16", SPOTON: "bfloat16"},
            }
        ],
        "memory": [{"length": 100, "batch_size": 16, "bytes": {DOCUMENTED: 8 << 20, SPOTON: 2 << 20}}],
        "notes": ["An arm was left out."],
    }  # fmt: skip


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The ratio of the medians would be 8 / 2; a slow second round must not count.
    found = pairwise_ratio(rounds(a=[6, 800, 8], b=[2, 100, 4]), "a", "b")
    assert found is not None
    assert (found.median, found.low, found.high) == (3, 2, 8)


def test_a_ratio_takes_the_clock_it_is_asked_for() -> None:
    times = [{"a": {"wall": 4.0, "cpu": 9.0}, "b": {"wall": 2.0, "cpu": 1.0}}]
    found = pairwise_ratio(times, "a", "b", "cpu")
    assert found is not None and found.median == 9
    assert median_seconds(times, "a") == 4


def test_there_is_no_ratio_to_an_arm_that_did_not_run() -> None:
    assert pairwise_ratio(rounds(a=[1], b=[2]), "c", "a") is None


@pytest.mark.parametrize(
    ("loss", "dtype", "agrees"),
    [
        (1.00009, "float32", True),
        (1.0002, "float32", False),
        (1.019, "bfloat16", True),
        (1.03, "bfloat16", False),
        (math.nan, "bfloat16", False),
    ],
)
def test_losses_agree_as_far_as_their_types_allow(loss: float, dtype: str, agrees: bool) -> None:
    found = disagreeing({"first": 1.0, "other": loss}, {"first": "float32", "other": dtype})
    assert bool(found) is not agrees
    assert all("other" in line for line in found)


def test_products_of_scoring_are_those_counted_by_hand() -> None:
    """Two texts of 3 and 5 tokens behind 7 cached prompt tokens; a text alone is as large as sqrt(17) -> 5.

    In the second layer, the last, only keys and values are made of all 8 tokens.
    """
    found = unavoidable_products(TINY, 7, [3, 5], 2, training=False)
    of_all, of_last = [(4, 4), (4, 2), (4, 2), (4, 4), (4, 6), (4, 6), (6, 4)], [2, 8, 8, 2, 2, 2, 2]
    linear = [
        Product(1, rows, *widths, 1)
        for widths, last in zip(of_all, of_last, strict=True)
        for rows in (8, last)
    ]
    assert found == [
        *linear,
        Product(2, 2 * 5, 2, 5, 1), Product(2, 2 * 5, 5, 2, 1),  # a text with itself: two heads share one key
        Product(2, 2 * 1, 2, 5, 1), Product(2, 2 * 1, 5, 2, 1),  # in the last layer its one target alone asks
        Product(1, 2 * 8, 2, 7, 1), Product(1, 2 * 8, 7, 2, 1),  # all texts with the prompt
        Product(1, 2 * 2, 2, 7, 1), Product(1, 2 * 2, 7, 2, 1),
        Product(1, 2, 4, 10),
    ]  # fmt: skip
    assert found[0].flops == 2 * 8 * 4 * 4


def test_training_runs_the_prompt_once_and_every_product_back() -> None:
    found = unavoidable_products(TINY, 7, [4, 4], 2, training=True)
    tokens = 7 + 8
    keys = 2 * 4 * 2
    rest = 4 * 4 + 4 * 4 + 3 * 4 * 6
    linear = (
        2 * 2 * (tokens * (keys + rest) + tokens * keys + 2 * rest)
    )  # a whole layer and the last, there and back
    # Two products there and four back, for each pair of query and key and head, over 2 numbers.
    pairs = (2 * 4 * 4 + 8 * 7 + 7 * 7) + (2 * 4 + 2 * 7)
    attention = 2 * 6 * pairs * 2 * 2
    assert sum(p.flops for p in found) == linear + attention + 2 * 2 * (2 * 4 * 10)


def test_the_products_can_be_run() -> None:
    runner(unavoidable_products(TINY, 7, [3, 5], 2, training=True), torch.float32)()


def test_tables_tell_ratios_share_of_the_limit_and_memory() -> None:
    text = tables(result())
    row = next(line for line in text.splitlines() if f"| {SPOTON} |" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "100", "16", SPOTON, "2.000", "2.000", "**10.00** (10.00-10.00)", "**4.00** (4.00-4.00)", "50%", "1.0000",
    ]  # fmt: skip
    assert f"| 100 | 16 | {SPOTON} | 2 | 0.25 |" in text
    assert "differ by 3e-05 of their value" in text
    assert text.endswith("An arm was left out.")
    speed = text[text.index("**m, training**") :]
    head, rule = [line for line in speed.splitlines() if line.startswith("|")][:2]
    assert head.count("|") == rule.count("|") == row.count("|")


def test_the_machine_is_named() -> None:
    text = machine_text(result())
    assert "Some CPU" in text and "torch 2.13.0" in text and "2 rounds" in text


def test_a_page_keeps_everything_outside_its_marks() -> None:
    page = f"before\n{BEGIN}\nold \\1\n{END}\nafter\n"
    assert filled(page, r"new \2") == f"before\n{BEGIN}\nnew \\2\n{END}\nafter\n"
    with pytest.raises(ValueError, match="0 times"):
        filled("no marks", "new")


def test_the_page_says_when_compiling_pays() -> None:
    found = result()
    (configuration,) = found["configurations"]
    assert "Compiling" not in tables(found)
    for one in configuration["rounds"]:
        one[COMPILED] = {"wall": one[SPOTON]["wall"] / 2, "cpu": 1.0}
    configuration["warm_up_seconds"] = {COMPILED: 50.0}
    assert "Compiling took 50 s, which its faster steps win back after 50 steps (P=100, batch 16)" in tables(
        found
    )
    for one in configuration["rounds"]:
        one[COMPILED] = one[SPOTON]
    assert "Compiling took 50 s and made steps no faster" in tables(found)


def test_goals_say_what_is_reached_and_what_is_not() -> None:
    found = result()
    assert goal_rows(found | {"configurations": [], "memory": []}) == []
    (configuration,) = found["configurations"]
    configuration["model"] = SMOLLM
    larger = configuration | {
        "batch_size": 32,
        "rounds": [{TUNED: {"wall": 3.0, "cpu": 6.0}, SPOTON: {"wall": 1.0, "cpu": 2.0}}],
    }
    found["configurations"].append(larger)
    rows = {title.split(": ")[1]: rest for title, *rest in goal_rows(found)}
    assert rows[f"{SPOTON}, times {DOCUMENTED}"] == ["at least 10", "10.00", "yes"]
    assert rows[f"{SPOTON}, times {TUNED}"] == ["at least 3.5", "4.00 / 3.00", "**in part**"]
    assert rows[f"{SPOTON}, of the limit"] == ["at least 45%", "50%", "yes"]
    assert rows[f"{SPOTON}, of {DOCUMENTED}"] == ["at most 0.25", "0.25", "yes"]
    assert "**Goals**" in tables(found)
