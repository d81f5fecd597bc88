"""`spoton export` and `spoton import` as a user runs them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from spoton.models import load_model
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.prompts.card import Calibration
from tests.cli.conftest import Run, a_prompt
from tests.tiny import WIDTH


@pytest.mark.parametrize(
    ("form", "name"), [("peft", "p"), ("t5x", "p.npy"), ("openprompt", "p.pt"), ("tgis", "p")]
)
def test_a_prompt_goes_out_and_comes_back(
    form: str, name: str, run: Run, prompts: PromptLibrary, tiny_model: Path, tmp_path: Path
) -> None:
    ran = run("export", "news", "--to", form, "--out", tmp_path / name, "--library", prompts.folder, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["prompts"] == ["news"] and ran.document["format"] == form
    back = tmp_path / "back.safetensors"
    ran = run(
        "import",
        tmp_path / name,
        "--from",
        form,
        "--out",
        back,
        "--model",
        tiny_model,
        "--labels",
        "good, bad",
        "--json",
    )
    assert ran.code == 0, ran.stderr
    again, prompt = SoftPrompt.load(back), prompts.get("news")
    assert torch.equal(again.value, prompt.value)
    assert again.card.labels == ["good", "bad"]
    assert again.card.model_fingerprint == prompt.card.model_fingerprint


def test_an_adapter_that_spoton_wrote_needs_no_more_words(
    run: Run, prompts: PromptLibrary, tmp_path: Path
) -> None:
    run("export", "news", "--to", "peft", "--out", tmp_path / "p", "--library", prompts.folder)
    ran = run("import", tmp_path / "p", "--from", "peft", "--out", tmp_path / "back.safetensors")
    assert ran.code == 0, ran.stderr
    assert SoftPrompt.load(tmp_path / "back.safetensors").card == prompts.get("news").card


def test_two_prompts_in_one_checkpoint(run: Run, prompts: PromptLibrary, tmp_path: Path) -> None:
    for form, name in (("baked", "baked"), ("gguf", "both.gguf")):
        ran = run(
            "export", "news", "quiz", "--to", form, "--out", tmp_path / name, "--library", prompts.folder
        )
        assert ran.code == 0, ran.stderr
        assert f"Wrote {tmp_path / name}" in " ".join(ran.stdout.split("\n"))
    record = json.loads((tmp_path / "baked" / "spoton.json").read_text())
    assert [entry["name"] for entry in record["prompts"]] == ["news", "quiz"]
    assert load_model(str(tmp_path / "baked")).embeddings.shape[0] == 328


def test_a_request_for_vllm(run: Run, prompts: PromptLibrary, tmp_path: Path) -> None:
    common = ("export", "news", "--to", "vllm", "--library", prompts.folder, "--out", tmp_path / "body.json")
    assert run(*common).code == 2
    assert run(*common, "--text", "The film was lovely.").code == 0
    assert {"model", "prompt_embeds", "max_tokens"} <= json.loads((tmp_path / "body.json").read_text()).keys()
    ran = run(
        "export", "news", "--to", "peft", "--library", prompts.folder, "--out", tmp_path / "p", "--text", "A"
    )
    assert ran.code == 2 and "a request for vllm" in ran.stderr and not (tmp_path / "p").exists()


@pytest.mark.parametrize("form", ["peft", "tgis"])
def test_prompts_of_two_models_leave_no_part_of_an_export(
    form: str, run: Run, prompts: PromptLibrary, tmp_path: Path
) -> None:
    prompts.add(a_prompt("stranger", width=WIDTH))
    ran = run(
        "export", "news", "stranger", "--to", form, "--library", prompts.folder, "--out", tmp_path / "two"
    )
    assert ran.code == 2 and "'stranger' was tuned with" in ran.stderr
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("name", ["sst2", "mrpc", "rte"])
def test_the_published_prompts(name: str, run: Run, tmp_path: Path) -> None:
    """The model is not at hand, so its fingerprint is given."""
    folder = Path(os.environ.get("SPOTON_SHARED", Path(__file__).parents[3] / "shared"))
    path = folder / "prompts" / "t5_1_1_lm100k_base" / f"{name}.npy"
    if not path.exists():
        pytest.skip("the published T5X prompts are not here; set SPOTON_SHARED to the folder above prompts/")
    out = tmp_path / f"{name}.safetensors"
    ran = run(
        "import", path, "--from", "t5x", "--out", out, "--model", "google/t5-base-lm-adapt",
        "--model-fingerprint", "f00d", "--license", "Apache-2.0", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert (ran.document["length"], ran.document["dim"]) == (100, 768)
    prompt = SoftPrompt.load(out)
    assert (prompt.card.name, prompt.card.task, prompt.card.source) == (name, name, f"{name}.npy")
    assert np.array_equal(prompt.value.numpy(), np.load(path))


def test_mistakes_are_explained(run: Run, prompts: PromptLibrary, tiny_model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((3, 5), np.float32))
    start = ("import", tmp_path / "p.npy", "--from", "t5x", "--out")
    ran = run(*start, tmp_path / "p.safetensors")
    assert ran.code == 2 and "--model" in ran.stderr
    ran = run(*start, tmp_path / "p.safetensors", "--model", tiny_model)
    assert ran.code == 2 and "rows of 5 numbers" in ran.stderr
    ran = run(*start, tmp_path / "p.pt", "--model", tiny_model)
    assert ran.code == 2 and ".safetensors" in ran.stderr
    ran = run(
        "import", tmp_path / "missing.npy", "--from", "t5x", "--out", tmp_path / "p.safetensors", "--json"
    )
    assert ran.code == 2 and ran.document["kind"] == "PromptError"
    ran = run("export", "nobody", "--to", "peft", "--out", tmp_path / "x", "--library", prompts.folder)
    assert ran.code == 2 and "nobody" in ran.stderr


def test_labels_of_an_import_are_read_as_those_of_data(
    run: Run, prompts: PromptLibrary, tmp_path: Path
) -> None:
    run("export", "news", "--to", "peft", "--out", tmp_path / "p", "--library", prompts.folder)
    line = ("import", tmp_path / "p", "--from", "peft", "--out", tmp_path / "back.safetensors", "--labels")
    for wrong in ("good,,bad", "good", "good,good"):
        ran = run(*line, wrong, "--json")
        assert ran.code == 2 and "all different, none empty" in ran.document["error"]
    assert run(*line, '"good, or fair",bad').code == 0
    assert SoftPrompt.load(tmp_path / "back.safetensors").card.labels == ["good, or fair", "bad"]


def test_a_calibration_follows_the_labels_of_an_import(
    run: Run, prompts: PromptLibrary, tmp_path: Path
) -> None:
    calibration = Calibration(bias=[0.5, -0.5], temperature=2.0, rows=8)
    news = prompts.get("news")
    facts = {"labels": ["bad", "good"], "calibration": calibration, "scores": {"test": {"accuracy": 80.0}}}
    prompt = SoftPrompt(news.value, news.card.model_copy(update=facts)).save(tmp_path / "p.safetensors")
    run("export", prompt, "--to", "peft", "--out", tmp_path / "p")
    back = tmp_path / "back.safetensors"
    line = ("import", tmp_path / "p", "--from", "peft", "--out", back, "--overwrite", "--labels")
    assert run(*line, "good,bad").code == 0
    moved = SoftPrompt.load(back).card
    assert moved.calibration is not None and moved.calibration.bias == [-0.5, 0.5] and moved.scores
    ran = run(*line, "good,bad,fair")
    assert ran.code == 0 and "calibration and scores are left out" in ran.stderr
    other = SoftPrompt.load(back).card
    assert other.calibration is None and other.scores == {}


def test_the_template_of_an_import_is_compiled(run: Run, prompts: PromptLibrary, tmp_path: Path) -> None:
    run("export", "news", "--to", "peft", "--out", tmp_path / "p", "--library", prompts.folder)
    line = ("import", tmp_path / "p", "--from", "peft", "--out", tmp_path / "back.safetensors", "--template")
    assert "not valid Jinja" in run(*line, "{{ text").stderr
    assert "reads no column" in run(*line, "Answer:").stderr
    assert not (tmp_path / "back.safetensors").exists()


@pytest.mark.parametrize("form", ["peft", "t5x", "gguf", "baked"])
def test_what_is_there_is_replaced_only_when_asked(
    form: str, run: Run, prompts: PromptLibrary, tmp_path: Path
) -> None:
    kept = tmp_path / "mine.bin"
    if form in ("peft", "baked"):
        kept = tmp_path / "mine" / "config.json"
        kept.parent.mkdir()
    kept.write_text("kept")
    out = kept if form in ("t5x", "gguf") else kept.parent
    line = ("export", "news", "--to", form, "--out", out, "--library", prompts.folder)
    ran = run(*line)
    assert ran.code == 2 and "--overwrite" in ran.stderr and kept.read_text() == "kept"
    assert list(kept.parent.glob("*.npy")) == [] and run(*line, "--overwrite").code == 0


def test_an_import_does_not_replace_a_prompt(run: Run, prompts: PromptLibrary, tmp_path: Path) -> None:
    run("export", "news", "--to", "peft", "--out", tmp_path / "p", "--library", prompts.folder)
    quiz = prompts.folder / "quiz.safetensors"
    before, line = quiz.read_bytes(), ("import", tmp_path / "p", "--from", "peft", "--out", quiz)
    ran = run(*line)
    assert ran.code == 2 and "--overwrite" in ran.stderr and quiz.read_bytes() == before
    assert run(*line, "--overwrite").code == 0 and quiz.read_bytes() != before
