"""Kept runs: only an end counts, and only a whole document."""

from __future__ import annotations

import pytest

from spoton.errors import Interrupted
from spoton.events import Progress
from spoton.sealing import sealed_json
from spoton.tuning import Recipe
from spoton.tuning.kept import tune_to_end, whole_document
from spoton.tuning.prompt_run import Job
from tests.tiny import tiny, toy_task

RECIPE = Recipe(length=4, steps=4, key_step=2, evaluate_every=2, batch_size=4, max_input_tokens=12)


def test_a_document_is_read_as_it_was_written() -> None:
    document = {"name": "cb", "scores": {"test": 1.5}, "words": "größer"}
    assert whole_document(sealed_json(document)) == document


@pytest.mark.parametrize("data", [None, b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_a_whole_document_counts_for_nothing(data: bytes | None) -> None:
    assert whole_document(data) is None


def test_every_cut_of_a_document_counts_for_nothing() -> None:
    data = sealed_json({"name": "cb", "seconds": 1.0})
    assert all(whole_document(data[:end]) is None for end in range(len(data) - 1))


def test_a_run_that_is_cut_off_is_refused() -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="arm A: Interrupted after 1 of 4 steps"):
        tune_to_end(tiny("llama"), Job(toy_task(), RECIPE, on_event=stop, phase="arm A"))
