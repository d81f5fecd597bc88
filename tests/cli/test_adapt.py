"""`spoton adapt` with a tiny model and two source prompts: the document, the files, the mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoton.prompts import PromptLibrary, SoftPrompt
from tests.cli.conftest import Run
from tests.faults.conftest import spoton
from tests.tiny import BAD, GOOD, NOUNS

MOODS = [*((word, "good") for word in GOOD), *((word, "bad") for word in BAD)]

RECIPE = ("--length", "4", "--steps", "6", "--key-step", "2", "--evaluate-every", "2", "--batch-size", "4")


def test_adapt_prints_and_leaves_the_whole_comparison(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "reviews.safetensors"
    ran = run(
        "adapt", reviews, "--input", "text", "--target", "label", "--model", tiny_model,
        "--library", prompts.folder, "--seeds", 2, "-k", 2, "--out", out, *RECIPE, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    document = ran.document
    assert {
        "task", "model", "metric", "evaluation", "splits", "scores", "steps", "retrieved", "prompt", "seconds",
    } <= set(document)  # fmt: skip
    assert set(document["scores"]) == {"zero_shot", "prompt_tuning", "transfer", "classical"}
    assert all(set(scores) == {"validation", "test"} for scores in document["scores"].values())
    assert document["steps"]["transfer"] <= document["steps"]["prompt_tuning"] == 6
    assert [set(one) >= {"name", "similarity"} for one in document["retrieved"]] == [True, True]
    assert document["prompt"] == str(out)
    assert SoftPrompt.load(out).length == 4
    assert json.loads(out.with_suffix(".json").read_text())["scores"] == document["scores"]
    assert {path.suffix for path in out.parent.iterdir()} == {".safetensors", ".json", ".png"}


def test_adapt_shows_the_arms_and_a_verdict(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    ran = run(
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, "--method", "weighted-average",
        "--similarity", "maximum_token", *RECIPE,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    for words in ("zero_shot", "prompt_tuning", "transfer", "one seed", "retrieved"):
        assert words in ran.stdout


def test_a_library_without_sources_for_the_model_is_a_mistake(
    run: Run, reviews: Path, tiny_model: Path, library: PromptLibrary
) -> None:
    ran = run("adapt", reviews, "--model", tiny_model, "--library", library.folder, *RECIPE, "--json")
    assert ran.code == 2
    assert ran.document["kind"] == "LibraryError"
    assert "Left out: 2 of another model." in ran.document["error"]


def test_a_budget_smaller_than_the_probe_is_a_mistake(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    ran = run(
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, *RECIPE, "--steps", 2, "--json"
    )
    assert ran.code == 2
    assert ran.document["kind"] == "RecipeError" and "--steps" in ran.document["error"]


def test_too_few_minutes_are_named_as_such(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    ran = run(
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, "--length", 4, "--minutes", 0.01,
        "--key-step", 10**6, "--json",
    )  # fmt: skip
    assert ran.code == 2 and ran.document["kind"] == "RecipeError"
    assert ran.document["error"].startswith("--minutes 0.01 leaves time for")
    assert "Raise --steps or --minutes" in ran.document["error"] and "--steps 0" in ran.document["error"]


def test_an_unwritable_place_is_found_out_before_anything_runs(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "p.safetensors"
    ran = run(
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, "--out", out, *RECIPE, "--json"
    )
    assert ran.code == 2
    assert str(out) in ran.document["error"]
    assert "seed 0" not in ran.stderr


def test_a_prompt_of_others_is_not_replaced_because_minutes_were_planned(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    """Planning leaves a file in the folder from which an interrupted command would go on."""
    out = tmp_path / "p.safetensors"
    prompts.list()[0].path.rename(out)  # a prompt without a record, as from `library pull`
    before = out.read_bytes()
    recipe = [value for value in RECIPE if value not in ("--steps", "6")]
    command = (
        "adapt",
        reviews,
        "--model",
        tiny_model,
        "--library",
        prompts.folder,
        "--out",
        out,
        *recipe,
        "--json",
    )
    for _ in range(2):
        ran = run(*command, "--minutes", "0.05")
        assert ran.code == 2 and "--overwrite" in ran.document["error"]
        assert out.read_bytes() == before and not out.with_suffix(".work").exists()


def started(folder: Path, *command: object) -> subprocess.Popen[str]:
    """`spoton` in a process of its own, in a folder of its own, on one thread."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "spoton", *map(str, command)], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The document that a process printed, without the time it took."""
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    document: dict[str, Any] = json.loads(stdout)
    assert document.pop("seconds") > 0
    return document


def killed(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Kills a process, which cannot tidy up, once it has come so far."""
    deadline = time.monotonic() + 240
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr
    assert stdout == ""


@pytest.mark.slow
@pytest.mark.timeout(600)  # it starts three processes, and a busy machine takes its time over each
def test_a_killed_comparison_goes_on_and_ends_as_an_undisturbed_one(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Killed for good while it tunes from scratch and again while it tunes a candidate."""
    command = (
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, "-k", "2", "--length", "4",
        "--steps", "120", "--key-step", "2", "--evaluate-every", "10", "--batch-size", "4",
        "--out", "p.safetensors", "--json",
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    work = cut / "p.work"

    killed(started(cut, *command), lambda: any(work.glob("*.checkpoint")))
    assert not any(work.glob("*.safetensors"))
    killed(started(cut, *command), lambda: any(work.glob("*.safetensors")) and any(work.glob("*.checkpoint")))
    # The lock of the killed run stays until something is written here again.
    assert {path.name for path in cut.iterdir() if path.suffix != ".lock"} == {"p.work"}

    again = finished(started(cut, *command))
    whole.mkdir()
    monkeypatch.chdir(whole)  # where the same relative --out is another place
    undisturbed = run(*command).document
    timed = {name: undisturbed[name] for name in ("seconds", "classical", "worth")}  # they hold seconds
    assert again | timed == undisturbed
    hashes = {SoftPrompt.load(folder / "p.safetensors").content_hash() for folder in (cut, whole)}
    assert len(hashes) == 1
    assert {path.name for path in cut.iterdir()} == {"p.safetensors", "p.json", "p.png"}
    assert json.loads((cut / "p.json").read_text()).keys() == again.keys() | {"seconds"}


def test_no_steps_give_the_best_source_untuned(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    command = ("adapt", reviews, "--model", tiny_model, "--library", prompts.folder, "--length", "4")
    ran = run(*command, "--steps", 0, "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    assert set(ran.document["scores"]) == {"zero_shot", "transfer", "classical"}
    assert ran.document["method"] == "untuned" and ran.document["retrieved"][0]["by"] == "trial"
    assert SoftPrompt.load(out).card.steps == 0
    assert "untuned" in run(*command, "--steps", 0).stdout
    refused = run(*command, "--steps", 0, "--method", "halving", "--seeds", 3, "--json")
    assert refused.code == 2 and "--method halving, --seeds 3" in refused.document["error"]


def test_a_trial_ranks_and_an_ensemble_is_kept(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "p.safetensors", ["20" if value == "6" else value for value in RECIPE]
    ran = run(
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, "--rank", "trial",
        "--method", "learned-mix", "-k", 2, "--seeds", 2, "--ensemble", "--out", out, *recipe, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.document["rank"] == "trial" and ran.document["ranking_cost"]["passes"] > 0
    assert ran.document["ensemble"] == SoftPrompt.load(out).card.scores
    answered = run("predict", out, "The film was warm", "--json")
    assert answered.code == 0 and answered.document["predictions"][0]["answer"] in (
        "bad",
        "good",
        "yes",
        "no",
    )
    exported = run("export", out, "--to", "t5x", "--out", tmp_path / "p.npy", "--json")
    assert exported.code == 2 and "is an ensemble of" in exported.document["error"]


def test_retrieve_ranks_by_trial_and_by_displacement(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    command = ("retrieve", reviews, "--model", tiny_model, "--library", prompts.folder, *RECIPE, "--json")
    tried = run(*command, "--rank", "trial")
    assert tried.code == 0, tried.stderr
    losses = [one["loss"] for one in tried.document["retrieved"]]
    assert losses == sorted(losses) and tried.document["cost"]["passes"] > 0
    moved = run(*command, "--rank", "displacement")
    assert moved.code == 0 and {one["name"] for one in moved.document["retrieved"]} <= {
        entry.name for entry in prompts.list()
    }
    assert moved.document["notes"] and "do not know their start" in moved.stderr
    name = prompts.list()[0].name
    refused = run("retrieve", name, "--library", prompts.folder, "--rank", "trial", "--json")
    assert refused.code == 2 and "a trial needs rows" in refused.document["error"]
    refused = run("retrieve", name, "--library", prompts.folder, "--rank", "displacement", "--json")
    assert refused.code == 2 and "does not hold the start" in refused.document["error"]


def test_the_key_of_a_task_is_that_of_tuning_it(
    run: Run,
    reviews: Path,
    tiny_model: Path,
    prompts: PromptLibrary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rate of a whole run falls slower than that of a run which ends with the key."""
    out, command = (
        tmp_path / "tuned.safetensors",
        ("--model", tiny_model, *RECIPE, "--schedule", "linear", "--json"),
    )
    assert run("tune", reviews, "--out", out, *command).code == 0
    alike = run("retrieve", out, "--library", prompts.folder, "--json").document["retrieved"]
    probed = run("retrieve", reviews, "--library", prompts.folder, *command).document["retrieved"]
    assert [one["similarity"] for one in probed] == pytest.approx([one["similarity"] for one in alike])
    refused = run(
        "retrieve", reviews, "--library", prompts.folder, "--minutes", 2, "--model", tiny_model, "--json"
    )
    assert refused.code == 2 and "--minutes is a budget for tuning" in refused.document["error"]
    short = [value if value != "6" else "1" for value in RECIPE]
    refused = run("retrieve", reviews, "--library", prompts.folder, "--model", tiny_model, *short, "--json")
    assert refused.code == 2 and "1 steps do not reach it" in refused.document["error"]

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spoton.tuning.training_run.TrainingRun.next_rows", stop)
    stopped = run("retrieve", reviews, "--library", prompts.folder, *command)
    assert stopped.code == 130 and stopped.document["kind"] == "Interrupted"


@pytest.mark.parametrize(
    ("command", "ranked"),
    [
        (["adapt"], ["--rank", "trial"]),
        (["adapt"], ["--steps", "0"]),
        (["retrieve"], ["--rank", "trial"]),
    ],
)
def test_a_similarity_that_would_rank_nothing_is_refused(
    command: list[str], ranked: list[str], run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    asked = ("--model", tiny_model, "--library", prompts.folder, *RECIPE, *ranked)
    ran = run(*command, reviews, *asked, "--similarity", "maximum_token", "--json")
    assert ran.code == 2 and "--similarity maximum_token" in ran.document["error"]


def test_adapt_says_why_there_is_no_comparison_with_tf_idf(
    run: Run, tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.csv"
    rows = [f"What is {n} and one?,{n} and one more" for n in range(40)]
    questions.write_text("\n".join(["text,label", *rows]))
    command = ("adapt", questions, "--model", tiny_model, "--library", prompts.folder, *RECIPE)
    for more in ((), ("--steps", 0)):
        ran = run(*command, *more, "--json")
        assert ran.code == 0, ran.stderr
        assert ran.document["classical"] is None and ran.document["worth"] is None
        assert "No comparison with TF-IDF: questions has open targets" in ran.document["notes"][-1]
        assert "No comparison with TF-IDF" in ran.stderr


def test_adapt_says_what_its_ranking_and_its_runs_noted(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    command = ("adapt", reviews, "--model", tiny_model, "--library", prompts.folder, *RECIPE)
    ran = run(*command, "--rank", "displacement", "--patience", 1, "--learning-rate", "1e-9", "--json")
    assert ran.code == 0, ran.stderr
    told = " ".join(ran.stderr.split())
    assert "do not know their start" in told
    assert "seed 0: transfer: Stopped after 2 of 4 steps" in told
    assert all(told.count(" ".join(note.split())) == 1 for note in ran.document["notes"])


def test_on_a_terminal_adapt_asks_for_columns(
    tiny_model: Path, prompts: PromptLibrary, tmp_path: Path
) -> None:
    pty = pytest.importorskip("pty", reason="there are no terminals of this kind here")
    data = tmp_path / "reviews.csv"
    rows = [f"The {noun} was {word}.,{mood},x{i}\n" for noun in NOUNS for i, (word, mood) in enumerate(MOODS)]
    data.write_text("sentence one,mood,note\n" + "".join(rows * 2))
    keyboard, terminal = pty.openpty()

    def sit_down() -> None:
        for number in (0, 2):
            os.dup2(terminal, number)
        sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, "w")

    shown: list[bytes] = []

    def watch() -> None:  # a terminal that nobody reads fills up, and its writer waits
        with contextlib.suppress(OSError):
            while part := os.read(keyboard, 4096):
                shown.append(part)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    os.write(
        keyboard, b"7\nmood\n1\n"
    )  # a wrong number first; then a name; then a number, if it is asked for
    line = ("adapt", data, "--model", tiny_model, "--library", prompts.folder, *RECIPE, "--json")
    ended = spoton(*line, before=sit_down)
    os.close(terminal)  # the last end of it, so that the thread reads what is left and ends
    watching.join()
    asked = b"".join(shown).decode(errors="replace")
    assert ended.code == 0, asked
    for words in ("1  sentence one", "Column of the target", "Give a number from 1 to 3"):
        assert words in asked, asked
    assert json.loads(ended.stdout)["splits"]["train"] > 0

    ended = spoton(*line)  # nobody is there to ask
    assert ended.code == 2 and "sentence one" in json.loads(ended.stdout)["error"]
