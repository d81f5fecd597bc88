"""Unfinished answers survive a kill, and are never taken for those of other texts."""

import importlib
from pathlib import Path

import pytest

from spoton.errors import Interrupted, SpotonError
from spoton.evaluation.kept_answers import KeptAnswer, KeptAnswers
from spoton.evaluation.predict import PART, predict
from spoton.events import Progress
from spoton.models import FrozenModel
from spoton.prompts import Card, SoftPrompt
from tests.tiny import WIDTH, draw, tiny

ANSWERS: list[KeptAnswer] = [("yes", {"yes": 0.1 + 0.2, "no": 1.0}), ("", None), ('a\n"b"\ud800', None)]


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path / "a.partial", "1")
    assert kept.begin() == []
    kept.add(ANSWERS[:2])
    kept.add(ANSWERS[2:])
    assert KeptAnswers(kept.path, "1").begin() == ANSWERS


@pytest.mark.parametrize(
    "end", ['[["yes", nul', '[["yes"]]', "[]", '[["yes", {"yes": "0.5"}]]', "[" * 100_000]
)
def test_a_damaged_end_is_dropped_and_written_over(tmp_path: Path, end: str) -> None:
    kept = KeptAnswers(tmp_path / "a.partial", "1")
    kept.begin()
    kept.add(ANSWERS[:1])
    with kept.path.open("a") as file:
        file.write(end)
    again = KeptAnswers(kept.path, "1")
    assert again.begin() == ANSWERS[:1]
    again.add(ANSWERS[1:])
    assert KeptAnswers(kept.path, "1").begin() == ANSWERS


def test_answers_to_other_texts_are_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path / "a.partial", "1")
    kept.begin()
    kept.add(ANSWERS)
    assert KeptAnswers(kept.path, "2").begin() == []
    assert KeptAnswers(kept.path, "1").begin() == []  # replaced
    for content in (b"text,label\n", b"\xff\xfe\x00", b""):
        kept.path.write_bytes(content)
        with pytest.raises(SpotonError, match="another file"):
            kept.begin()
        assert kept.path.read_bytes() == content


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


def prompt_of(model: FrozenModel, labels: list[str] | None) -> SoftPrompt:
    card = Card(
        name="toy", task="toy", model="tiny-llama", model_fingerprint=model.fingerprint, labels=labels,
        template="{{ text }}\nVerdict:", source="file:toy.csv",
    )  # fmt: skip
    return SoftPrompt(draw(4, WIDTH), card)


@pytest.mark.parametrize("labels", [["yes", "no"], None])
def test_an_interrupted_call_goes_on_where_it_stopped(
    model: FrozenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[str] | None
) -> None:
    # The package exports the function under the name of its module.
    monkeypatch.setattr(importlib.import_module("spoton.evaluation.predict"), "PART", 3)
    prompt, kept = prompt_of(model, labels), tmp_path / "answers.csv.partial"
    texts = [f"Text {i}" if i != 4 else "" for i in range(9)]
    whole = predict(model, prompt, texts, max_tokens=3)

    def stop(event: Progress) -> None:
        if event.done > 5:  # inside the second part
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"after 3 of 8 rows.*answers\.csv\.partial"):
        predict(model, prompt, texts, max_tokens=3, kept=kept, on_event=stop)
    seen: list[Progress] = []
    assert predict(model, prompt, texts, max_tokens=3, kept=kept, on_event=seen.append) == whole
    assert min(event.done for event in seen) > 3 and seen[-1].done == seen[-1].total == 8
    seen.clear()
    assert predict(model, prompt, texts, max_tokens=3, kept=kept, on_event=seen.append) == whole
    assert seen == []  # all of them were kept


def test_other_texts_options_and_prompts_start_anew(model: FrozenModel, tmp_path: Path) -> None:
    prompt, kept, texts = prompt_of(model, ["yes", "no"]), tmp_path / "kept", ["One", "Two"]
    predict(model, prompt, texts, kept=kept)
    other = SoftPrompt(draw(4, WIDTH, seed=5), prompt.card)
    for asked, rows, options in (
        (prompt, ["One", "Three"], {}),
        (prompt, texts, {"calibrate": False}),
        (other, texts, {}),
    ):
        seen: list[Progress] = []
        expected = predict(model, asked, rows, **options)
        assert predict(model, asked, rows, kept=kept, on_event=seen.append, **options) == expected
        assert seen[-1].done == 2 and seen


def test_nothing_is_left_if_the_first_part_is_interrupted(model: FrozenModel, tmp_path: Path) -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        predict(model, prompt_of(model, ["yes", "no"]), ["One"], kept=tmp_path / "kept", on_event=stop)
    assert not isinstance(caught.value, Interrupted) and list(tmp_path.iterdir()) == [] and PART > 1
