"""Which rows choose and which score: the paper's protocol, the honest one, and halves that share no group."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.errors import DataError
from spoton.tasks import Example, load_task
from spoton.tasks.protocol import halves
from spoton.tasks.render import Rendered
from tests.tasks.test_sources import ROWS, write

labelled = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=2, max_size=60)


def rendered(rows: list[tuple[str, int]]) -> Rendered:
    examples = [Example(f"{i} in {group}", label) for i, (label, group) in enumerate(rows)]
    return Rendered(examples, [str(group) for _, group in rows])


@given(labelled, st.integers(0, 3))
def test_halves_part_every_group_whole(rows: list[tuple[str, int]], seed: int) -> None:
    both = rendered(rows)
    first, second = halves(both, seed)
    assert Counter([*first, *second]) == Counter(both.examples)
    group_of = dict(zip(both.examples, both.groups, strict=True))
    assert not {group_of[row] for row in first} & {group_of[row] for row in second}
    assert list(first) == [row for row in both.examples if row in set(first)], "the order given is kept"
    assert halves(both, seed) == (first, second)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=80))
def test_halves_of_single_rows_hold_each_target_in_proportion(labels: list[str]) -> None:
    first, second = halves(rendered([(label, i) for i, label in enumerate(labels)]), 0)
    counts = [Counter(row.target for row in half) for half in (first, second)]
    assert all(abs(counts[0][label] - counts[1][label]) <= 1 for label in "abc")
    assert abs(len(first) - len(second)) <= 3, "one for each target that is odd"


def test_the_two_protocols(tmp_path: Path) -> None:
    write(tmp_path / "boolq", ROWS)
    honest = load_task("boolq", data_dir=tmp_path)
    paper = load_task("boolq", data_dir=tmp_path, protocol="paper")
    assert honest.protocol == "honest" and paper.protocol == "paper"
    assert paper.test == paper.validation and len(paper.validation) == 4
    assert set(honest.validation) | set(honest.test) == set(paper.validation)
    assert honest.data_hash() != paper.data_hash()
    assert honest.notes == ("Protocol honest: the test split is half of the official validation split.",)
    assert paper.notes == ("Protocol paper: the test split is the validation split.",)
    assert paper.source.endswith(", protocol paper")


def test_the_papers_protocol_needs_its_split(tmp_path: Path) -> None:
    write(tmp_path / "boolq", {"train": ROWS["train"]})
    with pytest.raises(DataError, match="no official validation split"):
        load_task("boolq", data_dir=tmp_path, protocol="paper")
