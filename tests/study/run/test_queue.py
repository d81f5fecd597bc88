"""The queue hands a group out once all it needs is finished, in order, and costs the same however many wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.study.plan.cell_base import Held
from spoton.study.plan.cells import Cell, Source, Transfer
from spoton.study.run.queue import Queue
from spoton.tuning.recipe import Recipe


def source(name: str) -> Source:
    return Source(task=name, seed=0, recipe=Recipe(), mode="rank", data_hash=name, held=Held("f", "float32"))


def transfer(origin: Cell, target: str) -> Transfer:
    return Transfer(
        task=target, seed=0, recipe=Recipe(), mode="rank", data_hash=target, held=Held("f", "float32"),
        source=origin.task, from_cell=origin.name,
    )  # fmt: skip


A, B = source("a"), source("b")
BOTH = (transfer(A, "c"), transfer(B, "c"))


def test_a_group_waits_for_all_that_its_cells_need() -> None:
    queue = Queue([(A,), (B,), BOTH], set())
    assert [queue.take(), queue.take(), queue.take()] == [(A,), (B,), None]
    queue.finish(B.name)
    assert queue.take() is None
    queue.finish(A.name)
    assert queue.take() == BOTH and queue.take() is None


def test_what_is_finished_is_not_handed_out_and_not_waited_for() -> None:
    queue = Queue([(A,), (B,), BOTH], {A.name, B.name})
    assert queue.take() == BOTH and queue.take() is None
    assert Queue([(A,), BOTH], {A.name, *(cell.name for cell in BOTH)}).take() is None


def test_a_group_that_comes_back_comes_first() -> None:
    queue = Queue([(A,), (B,)], set())
    first = queue.take()
    assert first == (A,)
    queue.put_back(first)
    assert queue.take() == (A,) and queue.take() == (B,)


@pytest.mark.parametrize("order", ["fail first", "finish first"])
def test_cells_that_need_a_failed_one_leave_the_others_of_their_group(order: str) -> None:
    queue = Queue([(A,), (B,), BOTH], set())
    assert queue.take() and queue.take()
    notes = [lambda: queue.fail(A.name), lambda: queue.finish(B.name)]
    for note in notes if order == "fail first" else reversed(notes):
        assert queue.take() is None
        note()
    assert queue.take() == (BOTH[1],) and queue.take() is None


def test_a_group_that_runs_only_whole_is_not_handed_out_without_one() -> None:
    queue = Queue([(A,), (B,), BOTH], set(), is_whole=lambda group: len(group) > 1)
    assert queue.take() and queue.take()
    queue.fail(A.name)
    queue.finish(B.name)
    assert queue.take() is None


def test_a_failure_is_passed_on() -> None:
    middle = transfer(A, "c")
    queue = Queue([(A,), (B,), (middle,), (transfer(middle, "d"), transfer(B, "d"))], set())
    assert queue.take() and queue.take()
    queue.finish(B.name)
    queue.fail(A.name)
    assert queue.take() == (transfer(B, "d"),) and queue.take() is None


@given(st.lists(st.lists(st.integers(0, 7), unique=True), max_size=20), st.sets(st.integers(0, 7)))
def test_it_hands_out_what_a_search_through_all_would(needs: list[list[int]], done: set[int]) -> None:
    sources = [source(str(i)) for i in range(8)]
    groups: list[tuple[Cell, ...]] = [(one,) for one in sources]
    groups += [tuple(transfer(sources[i], f"t{n}") for i in some) for n, some in enumerate(needs) if some]
    finished = {sources[i].name for i in done}
    queue, waiting = Queue(groups, finished), [g for g in groups if not all(c.name in finished for c in g)]
    while waiting:
        ready = next(g for g in waiting if all(name in finished for cell in g for name in cell.needs))
        assert queue.take() == ready
        waiting.remove(ready)
        for cell in ready:
            finished.add(cell.name)
            queue.finish(cell.name)
    assert queue.take() is None
