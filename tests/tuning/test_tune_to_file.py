"""One tuning run as files: what it leaves, what an interruption or a full disk leaves, and going on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread

from spoton.errors import DataError, Interrupted, SpotonError
from spoton.evaluation import evaluate
from spoton.events import OnEvent, Progress
from spoton.models import FrozenModel
from spoton.prompts import SoftPrompt
from spoton.tuning import Recipe, tune
from spoton.tuning.tune_to_file import tune_to_file
from tests.tiny import tiny, toy_task

RECIPE = Recipe(length=4, steps=12, key_step=5, evaluate_every=4, batch_size=4, learning_rate=0.1)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def whole(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prompt of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "p.safetensors"
    tune_to_file(model, toy_task(), RECIPE, out)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "p.safetensors"


def names(out: Path) -> set[str]:
    return {path.name for path in out.parent.iterdir()}


def record_of(out: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    document: dict[str, Any] = json.loads(out.with_suffix(".json").read_text(), parse_constant=refuse)
    return document


def interrupt(phase: str, done: int) -> OnEvent:
    """Ctrl-C at a moment."""

    def watch(event: Progress) -> None:
        if event.phase == phase and event.done >= done:
            raise KeyboardInterrupt

    return watch


def same_but_for_time(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("seconds", "prompt", "curves")}


def test_a_run_leaves_prompt_record_and_curve(whole: Path) -> None:
    assert names(whole) == {"p.safetensors", "p.json", "p.png"}
    assert imread(whole.with_suffix(".png")).shape[1] > 400


def test_what_is_returned_is_what_is_written(model: FrozenModel, out: Path) -> None:
    record = tune_to_file(model, toy_task(), RECIPE, out)
    assert record == record_of(out)
    assert record["prompt"] == str(out) and record["curves"] == str(out.with_suffix(".png"))


def test_the_record_says_how_the_prompt_came_about(whole: Path, model: FrozenModel) -> None:
    record, task = record_of(whole), toy_task()
    assert Recipe(**record["recipe"]) == RECIPE
    assert (record["steps"], record["key_step"], record["stopped"]) == (12, 5, "finished")
    assert record["data_hash"] == task.data_hash() and record["splits"] == task.splits()
    assert record["model_fingerprint"] == model.fingerprint
    assert (record["evaluation"], record["metric"], record["truncated"]) == ("rank", "accuracy", 0)
    assert len([entry for entry in record["history"] if "loss" in entry]) == 12
    assert record["seconds"] > 0 and "torch" in record["versions"]


def test_the_prompt_is_that_of_the_loop(whole: Path, model: FrozenModel) -> None:
    kept, tuned = SoftPrompt.load(whole), tune(model, toy_task(), RECIPE).prompt
    assert kept.content_hash() == tuned.content_hash()
    assert kept.card.best_step == tuned.card.best_step


def test_the_kept_prompt_has_the_score_it_was_tested_with(whole: Path, model: FrozenModel) -> None:
    kept, task = SoftPrompt.load(whole), toy_task()
    assert kept.card.scores == record_of(whole)["scores"]
    assert kept.card.scores["test"] == evaluate(model, kept.value, task.test, task).scores


def test_the_test_split_is_seen_once_and_last(model: FrozenModel, out: Path) -> None:
    seen: list[Progress] = []
    tune_to_file(model, toy_task(), RECIPE, out, on_event=seen.append)
    assert [event.phase for event in seen] == ["tuning"] * 12 + ["test"]
    assert seen[-1].total == len(toy_task().test)


def test_without_a_test_split_there_is_no_test_score(model: FrozenModel, out: Path) -> None:
    record = tune_to_file(model, toy_task(test=()), RECIPE, out)
    assert record["scores"].keys() == SoftPrompt.load(out).card.scores.keys() == {"validation"}


def test_how_to_evaluate_can_be_chosen(model: FrozenModel, out: Path) -> None:
    assert tune_to_file(model, toy_task(), RECIPE, out, evaluation="generate")["evaluation"] == "generate"


def test_ctrl_c_keeps_the_best_prompt_and_no_record(model: FrozenModel, out: Path) -> None:
    with pytest.raises(Interrupted, match=r"after 6 of 12 steps.*p\.safetensors.*--resume"):
        tune_to_file(model, toy_task(), RECIPE, out, on_event=interrupt("tuning", 6))
    assert names(out) == {"p.safetensors", "p.checkpoint"}
    assert SoftPrompt.load(out).card.best_step == 4


def test_a_resumed_run_ends_as_an_undisturbed_one(model: FrozenModel, out: Path, whole: Path) -> None:
    with pytest.raises(Interrupted):
        tune_to_file(model, toy_task(), RECIPE, out, on_event=interrupt("tuning", 6))
    seen: list[int] = []
    tune_to_file(model, toy_task(), RECIPE, out, resume=True, on_event=lambda event: seen.append(event.done))
    assert seen[0] == 5  # behind the look at step 4
    assert SoftPrompt.load(out).content_hash() == SoftPrompt.load(whole).content_hash()
    assert same_but_for_time(record_of(out)) == same_but_for_time(record_of(whole))
    assert names(out) == names(whole)


def test_without_resume_a_run_begins_anew(model: FrozenModel, out: Path, whole: Path) -> None:
    with pytest.raises(Interrupted):
        tune_to_file(model, toy_task(), RECIPE, out, on_event=interrupt("tuning", 6))
    seen: list[int] = []
    tune_to_file(
        model, toy_task(), RECIPE, out, overwrite=True, on_event=lambda event: seen.append(event.done)
    )
    assert seen[0] == 1
    assert SoftPrompt.load(out).content_hash() == SoftPrompt.load(whole).content_hash()


def test_ctrl_c_in_the_test_loses_no_step(model: FrozenModel, out: Path, whole: Path) -> None:
    with pytest.raises(Interrupted, match="before the test was finished"):
        tune_to_file(model, toy_task(), RECIPE, out, on_event=interrupt("test", 1))
    assert names(out) == {"p.safetensors", "p.checkpoint"}
    assert "test" not in SoftPrompt.load(out).card.scores
    phases: list[str] = []
    tune_to_file(
        model, toy_task(), RECIPE, out, resume=True, on_event=lambda event: phases.append(event.phase)
    )
    assert phases == ["test"]
    assert record_of(out)["scores"] == record_of(whole)["scores"]


@pytest.mark.parametrize(("phase", "done", "resumed"), [("rate", 9, [9, 10, 11, 12]), ("test", 1, [])])
def test_an_interrupted_choice_of_the_rate_resumes_with_the_rate_that_was_chosen(
    model: FrozenModel, out: Path, tmp_path: Path, phase: str, done: int, resumed: list[int]
) -> None:
    recipe, chosen = RECIPE.changed(learning_rate="auto"), []
    alone = tune_to_file(
        model,
        toy_task(),
        recipe,
        tmp_path / "whole.safetensors",
        on_event=lambda event: chosen.append(event.phase),
    )
    assert "rate" in chosen[-2] and "0.0045" not in chosen[-2], (
        "the first rate has the checkpoint of plain runs"
    )

    def stop(event: Progress) -> None:
        if phase in event.phase and event.done >= done:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="--resume continues from the last evaluation"):
        tune_to_file(model, toy_task(), recipe, out, on_event=stop)
    seen: list[Progress] = []
    record = tune_to_file(model, toy_task(), recipe, out, resume=True, on_event=seen.append)
    assert [event.done for event in seen if "rate" in event.phase] == resumed
    assert record["history"] == alone["history"] and names(out) == {"p.safetensors", "p.json", "p.png"}


def test_an_interrupted_run_leaves_a_finished_one_and_its_record(model: FrozenModel, out: Path) -> None:
    tune_to_file(model, toy_task(), RECIPE, out)
    record, other = record_of(out), RECIPE.changed(seed=1)
    with pytest.raises(Interrupted):
        tune_to_file(model, toy_task(), other, out, overwrite=True, on_event=interrupt("tuning", 6))
    assert SoftPrompt.load(out).card.seed == 0 and record_of(out) == record
    assert SoftPrompt.load(out.with_name("p.interrupted.safetensors")).card.seed == 1


def test_a_prompt_that_cannot_be_saved_leaves_the_checkpoint_to_go_on_from(
    model: FrozenModel, out: Path, whole: Path
) -> None:
    """The place is good when the run begins; at its end a folder of that name is in the way."""

    def get_in_the_way(event: Progress) -> None:
        if event.phase == "test":
            out.mkdir()

    with pytest.raises(SpotonError, match=r"p\.safetensors.*not a regular file"):
        tune_to_file(model, toy_task(), RECIPE, out, on_event=get_in_the_way)
    assert names(out) == {"p.safetensors", "p.checkpoint"} and list(out.iterdir()) == []
    out.rmdir()
    tune_to_file(model, toy_task(), RECIPE, out, resume=True)
    assert names(out) == names(whole)
    assert SoftPrompt.load(out).content_hash() == SoftPrompt.load(whole).content_hash()


@pytest.mark.parametrize("suffix", [".png", ".json"])
def test_a_picture_or_record_that_cannot_be_saved_leaves_no_record(
    model: FrozenModel, out: Path, suffix: str
) -> None:
    def get_in_the_way(event: Progress) -> None:
        if event.phase == "test":
            out.with_suffix(suffix).mkdir()

    with pytest.raises(SpotonError, match=rf"p{suffix}"):
        tune_to_file(model, toy_task(), RECIPE, out, on_event=get_in_the_way)
    assert not out.with_suffix(".json").is_file() and out.with_suffix(".checkpoint").is_file()
    assert not [name for name in names(out) if name.endswith(".tmp")]


def test_a_bad_place_is_found_out_before_tuning(model: FrozenModel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen: list[Progress] = []
    for wrong in (tmp_path / "file" / "p.safetensors", tmp_path / "p.json"):
        with pytest.raises(SpotonError, match=wrong.name):
            tune_to_file(model, toy_task(), RECIPE, wrong, on_event=seen.append)
    assert seen == []


def test_a_task_that_cannot_be_tuned_leaves_an_earlier_run_alone(model: FrozenModel, out: Path) -> None:
    tune_to_file(model, toy_task(), RECIPE, out)
    before = {name: (out.parent / name).read_bytes() for name in names(out)}
    with pytest.raises(DataError, match="validation"):
        tune_to_file(model, toy_task(validation=()), RECIPE, out, overwrite=True)
    assert {name: (out.parent / name).read_bytes() for name in names(out)} == before


def test_the_key_in_the_file_is_that_of_the_key_step(whole: Path, model: FrozenModel) -> None:
    short = tune(model, toy_task(), RECIPE.changed(steps=5)).prompt
    key = SoftPrompt.load(whole).key
    assert key is not None and short.key is not None and torch.equal(key, short.key)
