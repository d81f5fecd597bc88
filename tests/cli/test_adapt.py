"""`spoton adapt` with a tiny model and two source prompts: the document, the files, the mistakes."""

from __future__ import annotations

import json
from pathlib import Path

from spoton.prompts import PromptLibrary, SoftPrompt
from tests.cli.conftest import Run

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
    assert set(document["scores"]) == {"zero_shot", "prompt_tuning", "transfer"}
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
        "--metric", "maximum_token", *RECIPE,
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


def test_a_budget_smaller_than_the_probe_is_a_mistake(
    run: Run, reviews: Path, tiny_model: Path, prompts: PromptLibrary
) -> None:
    ran = run(
        "adapt", reviews, "--model", tiny_model, "--library", prompts.folder, *RECIPE, "--steps", 2, "--json"
    )
    assert ran.code == 2
    assert ran.document["kind"] == "RecipeError" and "--steps" in ran.document["error"]


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
