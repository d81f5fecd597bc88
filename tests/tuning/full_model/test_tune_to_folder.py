"""One run of model tuning as a folder: what it leaves, what an interruption leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spoton.errors import Interrupted, PromptError, SpotonError
from spoton.evaluation import evaluate
from spoton.events import OnEvent, Progress
from spoton.models import FrozenModel, load_model
from spoton.tasks.mixture import mix
from spoton.tuning import ModelRecipe, Recipe, tune
from spoton.tuning.full_model.tune_to_folder import save_model, tune_model_to_folder
from tests.tiny import tiny, tokenizer, toy_task

RECIPE = ModelRecipe(steps=8, evaluate_every=4, batch_size=4, learning_rate=3e-3)
MODEL_FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def interrupt(phase: str, done: int) -> OnEvent:
    """Ctrl-C at a moment."""

    def watch(event: Progress) -> None:
        if event.phase == phase and event.done >= done:
            raise KeyboardInterrupt

    return watch


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["llama", "t5", "t5gemma", "gpt2"])
def test_the_folder_is_a_model_with_the_recorded_score(family: str, tmp_path: Path) -> None:
    model, task, out = tiny(family), toy_task(), tmp_path / "out"
    record = tune_model_to_folder(model, task, RECIPE, out)
    assert names(out) >= MODEL_FILES | {"record.json", "curve.png"} and "checkpoint" not in names(out)
    assert record == json.loads((out / "record.json").read_text())
    # The weights are as open to others as the rest.
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    loaded = load_model(str(out), dtype="float32")
    assert (
        loaded.fingerprint == record["tuned_fingerprint"] != record["model_fingerprint"] == model.fingerprint
    )
    assert evaluate(loaded, None, task.test, task).scores == record["scores"]["test"]
    validation = evaluate(loaded, None, task.validation, task)
    assert record["scores"]["validation"] == {"accuracy": validation.score}
    best = next(e for e in record["history"] if e["step"] == record["best_step"] and "validation" in e)
    assert validation.loss == pytest.approx(best["validation_loss"], rel=1e-5)
    assert record["tuned_parameters"] == model.network.num_parameters()
    assert record["tuned_bytes"] == 4 * record["tuned_parameters"]


def test_both_splits_are_scored_as_the_recipe_says(tmp_path: Path) -> None:
    # The sum favours the short label, so that it and the mean differ.
    task, recipe = toy_task(("yes", "no maybe")), RECIPE.changed(label_score="mean", learning_rate=1e-6)
    record = tune_model_to_folder(tiny(seed=1), task, recipe, tmp_path / "out")
    loaded = load_model(str(tmp_path / "out"), dtype="float32")
    by = {how: evaluate(loaded, None, task.test, task, label_score=how).scores for how in ("sum", "mean")}
    assert record["scores"]["test"] == by["mean"] != by["sum"]


def test_the_test_split_is_seen_once_and_last(tmp_path: Path) -> None:
    seen: list[Progress] = []
    tune_model_to_folder(tiny(), toy_task(), RECIPE, tmp_path / "out", on_event=seen.append)
    assert [event.phase for event in seen] == ["model tuning"] * 8 + ["test"]


@pytest.mark.parametrize(("phase", "done"), [("model tuning", 1), ("model tuning", 6), ("test", 1)])
def test_ctrl_c_keeps_the_best_and_resume_goes_on(phase: str, done: int, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = tune_model_to_folder(tiny(), toy_task(), RECIPE, whole)
    with pytest.raises(Interrupted, match=r"best weights so far are in .*cut.*--resume"):
        tune_model_to_folder(tiny(), toy_task(), RECIPE, cut, on_event=interrupt(phase, done))
    assert "record.json" not in names(cut) and "checkpoint" in names(cut)
    load_model(str(cut))
    found = tune_model_to_folder(tiny(), toy_task(), RECIPE, cut, resume=True)
    assert weights(cut) == weights(whole) and found["scores"] == expected["scores"]
    assert names(cut) == names(whole)


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune_model_to_folder(tiny(), toy_task(), RECIPE, out)
    first = weights(out)
    record = tune_model_to_folder(tiny(), toy_task(), RECIPE.changed(seed=5), out, overwrite=True)
    assert weights(out) != first and record["seed"] == 5


def test_no_file_of_the_replaced_model_is_read(tmp_path: Path) -> None:
    chatty, out = tiny(), tmp_path / "out"
    chatty.tokenizer.chat_template = "{{ messages[0].content }}"
    save_model(chatty, out)
    (out / "model.safetensors.index.json").write_text("{}")
    (out / "model-00001-of-00002.safetensors").write_bytes(b"")
    (out / "notes.txt").write_text("mine")
    save_model(tiny(seed=1), out)
    assert load_model(str(out)).tokenizer.chat_template is None
    assert names(out) == MODEL_FILES | {"notes.txt"}


def test_places_that_are_none(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    with pytest.raises(SpotonError, match="holds files that no run of model tuning left"):
        tune_model_to_folder(tiny(), toy_task(), RECIPE, mine)
    with pytest.raises(SpotonError, match=r"Use --out .*prompt\."):
        tune_model_to_folder(tiny(), toy_task(), RECIPE, tmp_path / "prompt.safetensors")
    tiny().network.save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"))
    with pytest.raises(SpotonError, match="is the model that tuning starts from"):
        tune_model_to_folder(model, toy_task(), RECIPE, tmp_path / "base")
    assert names(mine) == {"thesis.tex"}


def test_a_prompt_of_the_model_before_is_refused(tmp_path: Path) -> None:
    """Even where the steps were too small to show in the rounded embedding matrix."""
    model = tiny()
    prompt = tune(model, toy_task(), Recipe(length=2, steps=1, key_step=1)).prompt
    tune_model_to_folder(model, toy_task(), RECIPE.changed(learning_rate=1e-12), tmp_path / "out")
    loaded = load_model(str(tmp_path / "out"))
    assert torch.equal(loaded.embeddings.bfloat16(), model.embeddings.bfloat16())
    with pytest.raises(PromptError):
        evaluate(loaded, prompt, toy_task().test, toy_task())


def test_multi_task_model_tuning_then_the_target(tmp_path: Path) -> None:
    """The paper's strongest baseline: first a mixture, then the target, with the lineage in the record."""
    mixed = mix("mixture-toys", [toy_task(), toy_task(None, name="open toy")], seed=0)
    first = tune_model_to_folder(tiny(), mixed, RECIPE, tmp_path / "mixture")
    model: FrozenModel = load_model(str(tmp_path / "mixture"), dtype="float32")
    second = tune_model_to_folder(model, toy_task(), RECIPE, tmp_path / "target")
    assert first["parents"] == []
    (parent,) = second["parents"]
    assert (parent["task"], parent["model_fingerprint"]) == ("mixture-toys", tiny().fingerprint)
    assert second["model_fingerprint"] == first["tuned_fingerprint"]
    assert second["history"][0]["step"] == 0  # what was tuned on the mixture may already be the best
