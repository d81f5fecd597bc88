"""Rows of a store that are tokenized when a step needs them: the same tokens, and the same prompt in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spoton.errors import DataError
from spoton.evaluation.encoding import encode
from spoton.evaluation.late_encoding import LateEncoded, encode_for_training
from spoton.tasks import Task, load_files, load_task_file
from spoton.tuning import Recipe, tune
from tests.tiny import tiny


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, labels: str | None = None) -> Task:
    with monkeypatch.context() as patched:
        patched.setenv("SPOTON_CACHE", str(path.parent / "cache"))
        if large:
            patched.setattr(load_files, "LARGE", -1)
        return load_task_file(path, labels=labels)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.csv"
    lines = [f"{'a good film ' * (i % 9 + 1)}{i},{'good' if i % 2 else 'bad'}\n" for i in range(80)]
    file.write_text("text,label\n" + "".join(lines))
    return file


@pytest.mark.parametrize("labels", [None, "none"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_tokens_are_those_of_encode(
    path: Path, monkeypatch: pytest.MonkeyPatch, family: str, labels: str | None
) -> None:
    model = tiny(family)
    task, small = (loaded(path, monkeypatch, large, labels) for large in (True, False))
    late = encode_for_training(
        model, task.train, end=True, prompt_length=4, max_input_tokens=16, labels=task.labels
    )
    now = encode(model, small.train, end=True, prompt_length=4, max_input_tokens=16, labels=task.labels)
    assert isinstance(late, LateEncoded) and len(late) == len(now)
    for rows in ([0, 1, 2], [5, 2, 40]):
        late.prepare(rows)
        assert late.batch(rows) == now.batch(rows)
    every = list(range(len(now)))
    assert late.part(every) == now.part(every)
    assert late.truncated == now.truncated > 0


def test_a_prompt_is_tuned_as_on_a_small_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    recipe = Recipe(length=4, steps=7, batch_size=8, evaluate_every=3, key_step=3, max_input_tokens=32)
    small, large = (tune(model, loaded(path, monkeypatch, big), recipe) for big in (False, True))
    assert torch.equal(small.prompt.value, large.prompt.value)
    assert small.history == large.history
    different = {"created"}
    assert small.prompt.card.model_dump(exclude=different) == large.prompt.card.model_dump(exclude=different)


def test_labels_that_do_not_fit_are_refused_before_the_first_step(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task = tiny(), loaded(path, monkeypatch, True)
    with pytest.raises(DataError, match="positions of"):
        encode_for_training(
            model,
            task.train,
            end=True,
            prompt_length=model.max_length or 0,
            max_input_tokens=16,
            labels=task.labels,
        )
