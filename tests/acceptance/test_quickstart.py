"""The README, line by line as a user types it: real model, real processes, an empty folder, a small CSV.

Only steps, rows, and the sizes of the study's file are cut down, and `--json` added; every flag of the README is used
as it stands there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from spoton.errors import DownloadError
from spoton.models import pull_model
from spoton.prompts import SoftPrompt
from tests.acceptance.pages import CHECKOUT, address, blocks, commands, words

# Two minutes where nothing else runs; the timeout is for machines where much does.
pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(1200)]

README = CHECKOUT / "README.md"
LINES = [line for line in commands(README, "spoton") if line != "spoton serve"]  # which ends with Ctrl-C only
SMALLER = {
    "adapt news_sentiment": ("--train-size", "8", "--validation-size", "4", "--test-size", "4"),
    "adapt reviews.csv": ("--steps", "6", "--key-step", "3", "--evaluate-every", "3", "--batch-size", "4"),
    "doctor reviews.csv": ("--batch-size", "2"),
}
# As a user would edit the file that `spoton study new` writes; all kinds of cells stay.
SMALLER_STUDY = (
    (r"seeds: .*", "seeds: [0]"),
    (r"steps: \d+", "steps: 2, key_step: 1, batch_size: 2, evaluate_every: 2"),
    (r"(train|validation|test)_size: \d+", r"\1_size: 4"),
)

THINGS = ("film", "book", "meal", "hotel", "song", "phone")
PRAISE = ("A joy from start to end", "I loved it", "Warm and clever", "Worth every penny", "Simply wonderful")
BLAME = ("A waste of time", "I hated it", "Cold and dull", "Not worth a penny", "Simply dreadful")


def strict(text: str) -> Any:
    """The whole of a text as one JSON document; NaN and Infinity are none."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with `reviews.csv`: 60 short rows, two labels."""
    try:
        pull_model("smollm2-135m")
    except DownloadError as error:
        pytest.skip(f"the embedded model cannot be fetched here: {error}")
    rows = [(f"{said}. The {thing} was what I hoped for.", "positive") for said in PRAISE for thing in THINGS]
    rows += [(f"{said}. What a poor {thing}.", "negative") for said in BLAME for thing in THINGS]
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return folder


Done = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ran(folder: Path) -> Done:
    """What every line did, in the order of the README, by its first two words."""
    environment = os.environ | {"SPOTON_LIBRARY": str(folder / "own-library")}
    done: Done = {}
    for line in LINES:
        arguments = words(line)[1:]
        name = " ".join(arguments[:2])
        done[name] = subprocess.run(
            [sys.executable, "-m", "spoton", *arguments, *SMALLER.get(name, ()), "--json"],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if words(line)[1:3] == ["study", "new"]:
            _make_smaller(folder / "mine" / "study.yaml")
    return done


def _make_smaller(study: Path) -> None:
    text = study.read_text()
    for pattern, smaller in SMALLER_STUDY:
        text, found = re.subn(pattern, smaller, text)
        assert found, pattern
    study.write_text(text)


def test_every_line_succeeds(ran: Done) -> None:
    assert {name: (one.returncode, one.stderr) for name, one in ran.items() if one.returncode} == {}
    assert len(ran) == len(LINES) >= 5


def test_stdout_is_one_json_document_each(ran: Done) -> None:
    for one in ran.values():
        assert strict(one.stdout)


def test_adapt_compares_and_retrieves_from_the_starter_library(ran: Done) -> None:
    document = strict(ran["adapt reviews.csv"].stdout)
    assert document["splits"] == {"train": 48, "validation": 6, "test": 6}
    assert document["model"] == "smollm2-135m" and document["truncated"] == 0
    assert document["scores"].keys() == {"zero_shot", "prompt_tuning", "transfer", "classical"}
    assert all(0 <= score <= 100 for arm in document["scores"].values() for score in arm.values())
    (source,) = document["retrieved"]
    listed = {prompt["name"] for prompt in strict(ran["library list"].stdout)}
    assert source["name"] in listed and -1 <= source["similarity"] <= 1


def test_nothing_is_tuned_for_the_first_result(ran: Done, folder: Path) -> None:
    document = strict(ran["adapt news_sentiment"].stdout)
    assert document["scores"].keys() == {"zero_shot", "transfer", "classical"}
    assert SoftPrompt.load(folder / "first.safetensors").card.parents


def test_adapt_leaves_prompt_record_and_curves_and_nothing_else(ran: Done, folder: Path) -> None:
    assert {path.name for path in folder.glob("reviews*")} == {
        "reviews.csv", "reviews.safetensors", "reviews.json", "reviews.png",
    }  # fmt: skip
    assert strict((folder / "reviews.json").read_text()) == strict(ran["adapt reviews.csv"].stdout)
    assert imread(folder / "reviews.png").shape[1] > 800
    prompt = SoftPrompt.load(folder / "reviews.safetensors")
    assert prompt.dim == 576 and prompt.key is not None
    assert prompt.card.labels == ["negative", "positive"]


def test_predict_answers_with_a_label(ran: Done) -> None:
    (answer,) = strict(ran["predict reviews.safetensors"].stdout)["predictions"]
    assert answer["probabilities"].keys() == {"negative", "positive"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probabilities"][answer["answer"]] >= 0.5


def test_the_doctor_sees_the_task_as_it_is(ran: Done) -> None:
    document = strict(ran["doctor reviews.csv"].stdout)
    assert document["balance"] == {"positive": 0.5, "negative": 0.5}
    assert document["label_tokens"] == {"negative": [" negative"], "positive": [" positive"]}
    assert any(rate["after"] < 0.5 * rate["before"] for rate in document["rates"])


def test_the_study_is_whole_and_its_report_needs_no_other_file(ran: Done, folder: Path) -> None:
    planned, status = (strict(ran[f"study {verb}"].stdout) for verb in ("plan", "run"))
    assert status["finished"] == status["cells"] == planned["cells"] > 10
    assert not status["failed"]
    report = (folder / "report.html").read_text()
    assert "news_sentiment" in report and "<script src" not in report


def test_the_python_snippet_runs(ran: Done, folder: Path) -> None:
    (snippet,) = blocks(README, "python")
    smaller = snippet.replace("steps=60", "steps=6, key_step=3, evaluate_every=3, batch_size=4")
    assert smaller != snippet
    done = subprocess.run(
        [sys.executable, "-c", smaller], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^(positive|negative) \{'negative': ", done.stdout, re.MULTILINE)


def test_the_prompt_is_served(ran: Done, folder: Path) -> None:
    pytest.importorskip("fastapi", reason="needs spoton[serve]")
    assert "spoton serve" in commands(README, "spoton")
    (curl,) = commands(README, "curl")
    environment = os.environ | {"SPOTON_LIBRARY": str(folder / "own-library")}
    command = [sys.executable, "-m", "spoton", "serve", "--port", "0", "--json"]
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        asking = curl.replace("http://127.0.0.1:8000", address(server))
        answered = subprocess.run([*shlex.split(asking), "-s"], capture_output=True, text=True, check=True)
        assert strict(answered.stdout)["data"][0]["answer"] in ("positive", "negative")
    finally:
        server.terminate()
        server.communicate()


def test_lists_show_what_is_bundled(ran: Done) -> None:
    assert len(strict(ran["library list"].stdout)) >= 8
    assert len(strict(ran["tasks list"].stdout)) >= 10


def test_progress_goes_to_stderr_and_ends(ran: Done) -> None:
    told = ran["adapt reviews.csv"].stderr
    assert "step 6/6" in told and "from scratch" in told
    assert all("Traceback" not in one.stderr and "Warning" not in one.stderr for one in ran.values())
