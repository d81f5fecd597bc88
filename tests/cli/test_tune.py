"""`spoton tune`, `predict` and `doctor` with a tiny model: what they print, what they leave, how they stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spoton.cli.options import ModelOptions
from spoton.errors import ModelError
from spoton.prompts import PromptLibrary, SoftPrompt
from tests.cli.conftest import Run
from tests.tiny import VOCABULARY, WIDTH

RECIPE = ("--length", "4", "--steps", "6", "--key-step", "2", "--evaluate-every", "3", "--batch-size", "4")


@pytest.fixture
def tuned(run: Run, reviews: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """A prompt tuned by the command."""
    out = tmp_path / "out" / "reviews.safetensors"
    ran = run("tune", reviews, "--model", tiny_model, "--out", out, *RECIPE)
    assert ran.code == 0, ran.stderr
    return out


def test_tune_leaves_prompt_curve_and_record(tuned: Path) -> None:
    assert {path.name for path in tuned.parent.iterdir()} == {
        "reviews.safetensors", "reviews.png", "reviews.json",
    }  # fmt: skip
    record = json.loads(tuned.with_suffix(".json").read_text())
    prompt = SoftPrompt.load(tuned)
    assert (prompt.length, prompt.dim) == (4, WIDTH)
    assert prompt.key is not None
    assert prompt.card.scores == record["scores"]
    assert {"validation", "test"} <= set(record["scores"])
    assert record["splits"] == {"train": 64, "validation": 8, "test": 8}
    assert record["recipe"]["steps"] == 6


def test_tune_prints_one_document(run: Run, reviews: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    own = ("--init", "labels", "--family", "sentiment")
    ran = run("tune", reviews, "--model", tiny_model, "--out", out, *RECIPE, *own, "--json")
    assert ran.document["prompt"] == str(out)
    assert SoftPrompt.load(out).card.family == "sentiment"
    assert ran.document["stopped"] == "finished"
    assert "tuning" in ran.stderr and "float" in ran.stderr  # progress, and the type that was chosen


def test_patience_ends_a_run_that_gets_no_better(
    run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    still = (
        "--learning-rate",
        1e-9,
        "--evaluate-every",
        1,
        "--steps",
        30,
        "--evaluation",
        "generate",
        "--init",
        "vocabulary",
    )
    ran = run(
        "tune", reviews, "--model", tiny_model, "--out", out, *RECIPE, *still, "--patience", 2, "--json"
    )
    assert ran.document["steps"] == 3 and ran.document["recipe"]["patience"] == 2
    assert "Stopped after 3 of 30 steps" in ran.document["message"]


def test_init_takes_the_name_of_a_prompt_in_a_library(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("news").mkdir()  # a folder is no prompt
    ran = run(
        "tune", reviews, "--model", tiny_model, "--out", "p.safetensors", *RECIPE, "--init", "news",
        "--library", prompts.folder, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.document["recipe"]["init"] == str(prompts.folder / "news.safetensors")
    (parent,) = SoftPrompt.load("p.safetensors").card.parents
    assert (parent.name, parent.hash) == ("news", prompts.get("news").content_hash())


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (("--target", "stars"), "DataError", "stars"),
        (("--metrics", "pearson"), "DataError", "'bad' (40 times), 'good' (40 times)"),
        (("--length", "0"), "RecipeError", "length"),
        (("--preset", "best"), "RecipeError", "decoder"),
        (("--init", "nowhere.safetensors"), "RecipeError", "nowhere.safetensors"),
        (("--init", "nowhere"), "RecipeError", "name of a prompt in a library"),
        (("--model", "/no/such/model"), "ModelError", "/no/such/model"),
        (("--device", "foo"), "ModelError", "'foo'; there is: auto, cpu"),
    ],
)
def test_mistakes_leave_nothing_behind(
    flags: tuple[str, str], kind: str, words: str, run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "p.safetensors"
    ran = run("tune", reviews, "--model", tiny_model, "--out", out, *RECIPE, *flags, "--json")
    assert ran.code == 2
    assert ran.document["kind"] == kind
    assert words in ran.document["error"]
    assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("devices", "asked", "there"),
    [(0, "cuda", "auto, cpu"), (2, "cuda:2", "auto, cpu, cuda, cuda:0, cuda:1")],
)
def test_a_device_that_is_not_there_is_a_mistake_that_names_those_that_are(
    devices: int, asked: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
    with pytest.raises(ModelError, match=f"'{asked}'; there is: {there}[.]"):
        ModelOptions(device=asked).load()


def test_an_unwritable_place_is_found_out_before_tuning(
    run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ran = run(
        "tune",
        reviews,
        "--model",
        tiny_model,
        "--out",
        tmp_path / "file" / "p.safetensors",
        *RECIPE,
        "--json",
    )
    assert ran.code == 2
    assert str(tmp_path / "file") in ran.document["error"]
    assert "tuning" not in ran.stderr


def test_control_c_keeps_the_best_and_resume_goes_on(
    run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The real thing: a process, SIGINT in mid-tuning, and the same command again."""
    long = (
        "--length",
        "4",
        "--steps",
        "400",
        "--key-step",
        "2",
        "--evaluate-every",
        "20",
        "--batch-size",
        "4",
    )
    out, whole = tmp_path / "cut.safetensors", tmp_path / "whole.safetensors"
    command = ["tune", str(reviews), "--model", str(tiny_model), *long]
    process = subprocess.Popen(
        [sys.executable, "-m", "spoton", *command, "--out", str(out), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A runner in the background ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not out.with_suffix(".checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=150)
    assert process.returncode == 130, stderr
    assert json.loads(stdout)["kind"] == "Interrupted"
    assert str(out) in stderr and "--resume" in stderr
    SoftPrompt.load(out)
    assert not out.with_suffix(".json").exists()  # the record says that a run is complete

    assert run(*command, "--out", out, "--resume").code == 0
    assert run(*command, "--out", whole).code == 0
    assert SoftPrompt.load(out).content_hash() == SoftPrompt.load(whole).content_hash()


def test_predict_takes_arguments_stdin_and_files(run: Run, tuned: Path, tmp_path: Path) -> None:
    texts = ["The film was lovely.", "The film was dull."]
    by_argument = run("predict", tuned, *texts, "--json").document["predictions"]
    assert [set(one["probabilities"]) for one in by_argument] == [{"good", "bad"}] * 2
    assert sum(by_argument[0]["probabilities"].values()) == pytest.approx(1.0)

    assert run("predict", tuned, "--json", stdin="\n".join(texts)).document["predictions"] == by_argument
    (tmp_path / "new.csv").write_text("text,stars\n" + "".join(f"{text},5\n" for text in texts))
    assert (
        run("predict", tuned, "--file", tmp_path / "new.csv", "--json").document["predictions"] == by_argument
    )
    (tmp_path / "new.txt").write_text("\n".join(texts) + "\n")
    assert (
        run("predict", tuned, "--file", tmp_path / "new.txt", "--json").document["predictions"] == by_argument
    )
    (as_columns,) = run("predict", tuned, '{"text": "The film was dull."}', "--json").document["predictions"]
    assert as_columns["input"] == by_argument[1]["input"]

    shown = run("predict", tuned, *texts).stdout.splitlines()
    assert len(shown) == 3 and "The film was dull." in shown[2]


def test_predict_without_texts_says_how_to_give_them(run: Run, tuned: Path, tmp_path: Path) -> None:
    ran = run("predict", tuned, stdin="\n")
    assert ran.code == 2 and "--file" in ran.stderr
    ran = run("predict", tuned, "--file", tmp_path / "nowhere.txt")
    assert ran.code == 2 and "nowhere.txt" in ran.stderr


def test_doctor_shows_what_the_model_sees(run: Run, reviews: Path, tiny_model: Path) -> None:
    ran = run("doctor", reviews, "--model", tiny_model, "--length", "4", "--batch-size", "4", "--json")
    assert ran.document["balance"] == {"good": 0.5, "bad": 0.5}
    assert set(ran.document["label_tokens"]) == {"good", "bad"}
    assert len(ran.document["rates"]) >= 3
    shown = run("doctor", reviews, "--model", tiny_model, "--length", "4", "--batch-size", "4")
    assert "learning rate" in shown.stdout and "good 50%" in shown.stdout
    told = " ".join(shown.stdout.split())
    assert ran.document["steps"] == 128  # eight passes over 64 rows, 4 a step
    assert "s a step: up to 128 steps take less than a minute" in told
    given = run("doctor", reviews, "--model", tiny_model, "--steps", "7", "--length", "4", "--json")
    assert given.document["steps"] == 7


def test_doctor_lists_no_texts_that_occur_once(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "open.csv"
    file.write_text("text,answer\n" + "".join(f"Question {i},a long answer {i}\n" for i in range(40)))
    ran = run("doctor", file, "--labels", "none", "--model", tiny_model, "--length", "4", "--batch-size", "4")
    assert ran.code == 0 and "open texts, all different" in ran.stdout and "a long answer" not in ran.stdout


ALL_WEIGHTS = ("--method", "model", "--steps", "6", "--evaluate-every", "3", "--learning-rate", "1e-3")


def test_model_tuning_leaves_a_model_that_evaluate_scores_alike(
    run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    ran = run("tune", reviews, "--model", tiny_model, "--out", out, *ALL_WEIGHTS, "--json")
    assert ran.code == 0, ran.stderr
    record = ran.document
    assert record["method"] == "model" and record["folder"] == str(out)
    assert record["tuned_bytes"] == 4 * record["tuned_parameters"] > 4 * VOCABULARY * WIDTH
    scored = run("evaluate", reviews, "--model", out, "--dtype", "float32", "--json").document
    assert scored["scores"] == record["scores"]["test"] and scored["prompt"] is None
    second = run("tune", reviews, "--model", out, "--out", tmp_path / "again", *ALL_WEIGHTS)
    assert second.code == 0 and "parameters" in second.stdout and str(tmp_path / "again") in second.stdout


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (("--length", "4", "--init", "labels"), "RecipeError", "--length, --init"),
        (("--key-step", "2"), "RecipeError", "--key-step"),
        (("--library", "starter"), "RecipeError", "--library"),
        (("--preset", "best"), "RecipeError", "paper-t5"),
        (("--learning-rate", "-1"), "RecipeError", "learning_rate"),
        (("--dtype", "bfloat16"), "ModelError", "--dtype bfloat16"),
        (("--compile",), "ModelError", "--compile"),
    ],
)
def test_what_makes_no_sense_with_model_tuning_is_refused(
    flags: tuple[str, ...], kind: str, words: str, run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    ran = run("tune", reviews, "--model", tiny_model, "--out", out, "--method", "model", *flags, "--json")
    assert (ran.code, ran.document["kind"]) == (2, kind)
    assert words in ran.document["error"] and not out.exists()


def test_a_prompts_name_is_no_folder_of_a_model(
    run: Run, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.safetensors"
    ran = run("tune", reviews, "--model", tiny_model, "--out", out, *ALL_WEIGHTS, "--json")
    assert ran.code == 2 and f"Use --out {tmp_path / 'tuned'}." in ran.document["error"]


def test_minutes_are_finite(run: Run, reviews: Path, tiny_model: Path, tmp_path: Path) -> None:
    ran = run("tune", reviews, "--model", tiny_model, "--out", tmp_path / "p.safetensors", "--minutes", "inf")
    assert ran.code == 2 and "finite number of minutes" in ran.stderr
