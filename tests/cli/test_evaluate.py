"""`spoton evaluate` and `spoton retrieve` with a tiny model and a file of reviews."""

from dataclasses import replace
from pathlib import Path

import pytest

from spoton.models import load_model
from spoton.prompts import PromptLibrary, SoftPrompt
from spoton.prompts.card import Calibration
from spoton.tasks.files import read_rows
from tests.cli.conftest import Run, a_prompt


def test_evaluate_names_mode_metric_and_model(run: Run, prompts: PromptLibrary, reviews: Path) -> None:
    ran = run("evaluate", "news", reviews, "--library", prompts.folder, "--json")
    assert ran.code == 0
    document = ran.document
    assert (document["evaluation"], document["metric"], document["split"]) == ("rank", "accuracy", "test")
    assert document["examples"] == 8
    assert 0 <= document["scores"]["accuracy"] <= 100
    assert document["intervals"].keys() == document["scores"].keys()
    low, high = document["intervals"]["accuracy"]
    assert 0 <= low <= document["scores"]["accuracy"] <= high <= 100
    shown = run("evaluate", "news", reviews, "--library", prompts.folder).stdout
    assert f"{document['scores']['accuracy']:.1f}  (95 % Wilson: {low:.1f} to {high:.1f})" in shown
    assert "tiny-llama" in document["model"]  # taken from the card


def test_evaluate_by_generate_on_another_split(run: Run, prompts: PromptLibrary, reviews: Path) -> None:
    file = prompts.folder / "news.safetensors"
    ran = run("evaluate", file, reviews, "--split", "validation", "--evaluation", "generate", "--json")
    assert ran.document["evaluation"] == "generate"


def test_evaluate_truncates_as_the_prompt_was_tuned(
    run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path
) -> None:
    made = prompts.get("news")
    card = made.card.model_copy(update={"recipe": {"max_input_tokens": 8}})
    file = SoftPrompt(made.value, card, made.key).save(tmp_path / "short.safetensors")
    short = run("evaluate", file, reviews, "--json").document
    assert (short["truncated"], short["max_input_tokens"]) == (8, 8)
    longer = run("evaluate", file, reviews, "--max-input-tokens", 64, "--json").document
    assert (longer["truncated"], longer["max_input_tokens"]) == (0, 64)
    unknown = run("evaluate", "news", reviews, "--library", prompts.folder, "--json").document
    assert unknown["max_input_tokens"] == 256  # a card without a recipe
    assert run("evaluate", file, reviews, "--max-input-tokens", 7).code == 2


def test_a_prompt_of_another_model_is_refused(
    run: Run, tmp_path: Path, tiny_model: Path, reviews: Path
) -> None:
    foreign = a_prompt().save(tmp_path / "foreign.safetensors")
    ran = run("evaluate", foreign, reviews, "--model", tiny_model, "--json")
    assert ran.code == 2
    assert ran.document["kind"] == "PromptError"
    assert "tiny-llama" in ran.document["error"] and "f00d" in ran.document["error"]


def test_a_second_prompt_of_another_model_is_refused_before_the_first_is_scored(
    run: Run, prompts: PromptLibrary, tmp_path: Path, reviews: Path
) -> None:
    foreign = a_prompt().save(tmp_path / "foreign.safetensors")
    ran = run("evaluate", "news", foreign, reviews, "--library", prompts.folder)
    assert ran.code == 2 and "f00d" in ran.stderr and "example" not in ran.stderr


def test_a_missing_column_names_those_there(run: Run, prompts: PromptLibrary, reviews: Path) -> None:
    ran = run("evaluate", prompts.folder / "news.safetensors", reviews, "--target", "stars", "--json")
    assert ran.code == 2
    assert ran.document["kind"] == "DataError"
    assert "stars" in ran.document["error"] and "label" in ran.document["error"]


def test_retrieve_by_a_prompt_needs_no_model(run: Run, prompts: PromptLibrary, tmp_path: Path) -> None:
    near = prompts.get("quiz")
    file = SoftPrompt(near.value, near.card.model_copy(update={"task": "mine"}), near.key).save(
        tmp_path / "p.safetensors"
    )
    ran = run("retrieve", file, "--library", prompts.folder, "-k", 1, "--json")
    (first,) = ran.document["retrieved"]
    assert first["name"] == "quiz"
    assert first["similarity"] == pytest.approx(1.0)


def test_retrieve_by_a_prompt_finds_prompts_with_older_fingerprints(
    run: Run, prompts: PromptLibrary, tmp_path: Path, tiny_model: Path
) -> None:
    today, *_, older = load_model(str(tiny_model)).fingerprints
    near = prompts.get("quiz")
    assert near.card.model_fingerprint == today != older
    prompts.add(replace(near, card=near.card.model_copy(update={"model_fingerprint": older})), name="old")
    stranger = near.card.model_copy(update={"model_fingerprint": "2-f00d"})
    prompts.add(replace(near, card=stranger), name="strange")
    file = tmp_path / "p.safetensors"
    replace(near, card=near.card.model_copy(update={"task": "mine"})).save(file)
    ran = run("retrieve", file, "--library", prompts.folder, "--json")
    assert {one["name"] for one in ran.document["retrieved"]} == {"news", "quiz", "old"}
    gone = near.card.model_copy(update={"task": "mine", "model": str(tmp_path / "gone")})
    replace(near, card=gone).save(file)
    prompts.add(replace(near, card=gone.model_copy(update={"model_fingerprint": older})), name="gone")
    ran = run("retrieve", file, "--library", prompts.folder, "--json")
    assert {one["name"] for one in ran.document["retrieved"]} == {"news", "quiz"}
    assert "1 prompts of" in ran.stderr and "have another fingerprint and are left out" in ran.stderr


def test_retrieve_by_the_name_of_a_prompt_in_a_library(run: Run, prompts: PromptLibrary) -> None:
    ran = run("retrieve", "news", "--library", prompts.folder, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["target"] == "news_task"
    assert [one["name"] for one in ran.document["retrieved"]] == ["quiz"]  # not itself


@pytest.mark.parametrize("name", ["boolq", "dpr"])  # dpr is an alias
def test_a_bundled_task_wins_over_a_prompt_of_its_name(name: str, run: Run, prompts: PromptLibrary) -> None:
    prompts.add(prompts.get("news"), name=name)
    ran = run("retrieve", name, "--input", "text", "--library", prompts.folder, "--json")
    assert ran.code == 2 and "a bundled task" in ran.document["error"]


def test_what_is_neither_task_nor_prompt(run: Run, prompts: PromptLibrary) -> None:
    ran = run("retrieve", "nwes", "--library", prompts.folder, "--json")
    assert ran.code == 2 and "nwes" in ran.document["error"]


def test_a_folder_shadows_neither_a_prompt_nor_a_task(
    run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("news", "boolq"):
        Path(name).mkdir()
    assert run("library", "show", "news", "--library", prompts.folder).code == 0
    assert run("evaluate", "news", reviews, "--library", prompts.folder).code == 0
    assert run("retrieve", "news", "--library", prompts.folder).code == 0
    ran = run("retrieve", "boolq", "--input", "text", "--library", prompts.folder, "--json")
    assert "a bundled task" in ran.document["error"]


def test_retrieve_by_a_task_probes_it(
    run: Run, prompts: PromptLibrary, reviews: Path, tiny_model: Path
) -> None:
    ran = run(
        "retrieve", reviews, "--model", tiny_model, "--library", prompts.folder, "--key-step", 2,
        "--length", 4, "--json",
    )  # fmt: skip
    assert {one["name"] for one in ran.document["retrieved"]} == {"news", "quiz"}
    assert "probe" in ran.stderr


def test_similarity(run: Run, prompts: PromptLibrary) -> None:
    same = run("similarity", "news", "news", "--library", prompts.folder, "--json").document
    other = run("similarity", "news", "quiz", "--library", prompts.folder, "--json").document
    assert same["of"] == "key"
    assert same["similarity"] == pytest.approx(1.0)
    assert other["similarity"] < 0.99
    ran = run("similarity", "news", "quiz", "--library", prompts.folder, "--similarity", "euclid")
    assert ran.code == 2 and "euclid" in ran.stderr


def test_without_a_prompt_the_model_alone_is_scored(run: Run, reviews: Path, tiny_model: Path) -> None:
    found = run("evaluate", reviews, "--model", tiny_model, "--json").document
    assert (found["prompt"], found["examples"], found["max_input_tokens"]) == (None, 8, 256)


def test_a_prompt_without_data_is_a_mistake(run: Run, prompts: PromptLibrary) -> None:
    ran = run("evaluate", prompts.folder / "news.safetensors")
    assert ran.code == 2 and "Give the data" in ran.stderr


@pytest.fixture
def tuned(prompts: PromptLibrary, tmp_path: Path) -> Path:
    """A prompt of the tiny model, tuned on a file with columns of unusual names."""
    made = prompts.get("news")
    facts = {
        "template": "{{ body }}\nVerdict:", "target": "stars", "labels": ["good", "bad"], "metric": "matthews",
        "source": "file:mine.csv@0123456789ab",
    }  # fmt: skip
    return SoftPrompt(made.value, made.card.model_copy(update=facts), made.key).save(
        tmp_path / "tuned.safetensors"
    )


def test_the_columns_labels_and_metric_are_those_of_the_card(
    run: Run, tuned: Path, reviews: Path, tmp_path: Path
) -> None:
    data = tmp_path / "new.csv"
    data.write_text(reviews.read_text().replace("text,label", "body,stars", 1))
    found = run("evaluate", tuned, data, "--json").document
    assert (found["metric"], found["examples"]) == ("matthews", 8)
    assert [one["label"] for one in found["by_label"]] == ["good", "bad"]
    assert sum(map(sum, found["confusion"]["counts"])) == 8
    shown = run("evaluate", tuned, data).stdout
    assert "precision" in shown and "most often taken for" in shown
    own = run("evaluate", tuned, reviews, "--input", "text", "--target", "label", "--json").document
    assert own["metric"] == "matthews"


@pytest.mark.parametrize(
    ("template", "columns"),
    [("{{ text | plain }}\nSentiment:", "text,label"), ("{{ number }} {{ text }}", "text,label")],
)
def test_a_prompt_of_a_bundled_task_reads_a_file_as_predict_does(
    template: str, columns: str, run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path
) -> None:
    """Unless its template reads a column that only the rows of the task have."""
    made, answers = prompts.get("news"), tmp_path / "answers.csv"
    facts = {"template": template, "labels": ["good", "bad"], "source": "bundled:movie_sentiment"}
    place = tmp_path / "bundled.safetensors"
    SoftPrompt(made.value, made.card.model_copy(update=facts), made.key).save(place)
    assert reviews.read_text().startswith(columns)
    assert run("evaluate", place, reviews, "--split", "all", "--predictions", answers).code == 0
    scored = [row["input"] for row in read_rows(answers)]
    made_of = [
        one["input"] for one in run("predict", place, "--file", reviews, "--json").document["predictions"]
    ]
    own = "number" in template
    assert (sorted(scored) == sorted(made_of)) is not own
    assert own or all(text.endswith("\nSentiment:") for text in scored)


def test_all_rows_of_a_new_file_may_be_scored_even_of_one_class(
    run: Run, tuned: Path, reviews: Path, tmp_path: Path
) -> None:
    data, answers = tmp_path / "new.csv", tmp_path / "answers.csv"
    rows = [line for line in reviews.read_text().splitlines()[1:] if line.endswith(",good")]
    data.write_text("body,stars\n" + "\n".join(rows) + "\n")
    found = run("evaluate", tuned, data, "--split", "all", "--predictions", answers, "--json").document
    assert found["examples"] == len(rows)
    assert found["predictions"] == str(answers)
    written = read_rows(answers)
    assert len(written) == len(rows) and list(written[0]) == ["row", "input", "target", "answer"]
    assert run("evaluate", tuned, data, "--split", "all", "--predictions", answers).code == 2


@pytest.mark.parametrize("split", ["all", "test"])
def test_answers_have_the_row_numbers_of_the_file(
    split: str, run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path
) -> None:
    header, *lines = reviews.read_text().splitlines()
    data, answers = tmp_path / "gaps.csv", tmp_path / "answers.csv"
    data.write_text("\n".join([header, ",good", *lines[:7], "empty,", *lines[7:]]) + "\n")
    line = ("evaluate", "news", data, "--library", prompts.folder, "--split", split)
    assert run(*line, "--predictions", answers).code == 0
    given, written = read_rows(data), read_rows(answers)
    assert written and all(given[int(row["row"]) - 1]["text"] in row["input"] for row in written)
    numbers = [int(row["row"]) for row in written]
    wanted = [2, *range(3, 9), *range(10, len(given) + 1)]
    assert numbers == wanted if split == "all" else set(numbers) < set(wanted)


def test_rows_of_several_files_say_their_split(
    run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path
) -> None:
    header, *lines = reviews.read_text().splitlines()
    test, answers = tmp_path / "other.csv", tmp_path / "answers.csv"
    test.write_text("\n".join([header, ",bad", *lines[:4]]) + "\n")
    line = ("evaluate", "news", reviews, "--library", prompts.folder, "--split", "all", "--test", test)
    assert run(*line, "--predictions", answers).code == 0
    found = [(row["split"], row["row"]) for row in read_rows(answers)]
    assert found[0] == ("train", "1") and found[-4:] == [("test", str(row)) for row in range(2, 6)]


def test_answers_do_not_become_data(run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.csv").write_text(reviews.read_text())
    line = ("evaluate", "news", folder, "--library", prompts.folder, "--split", "all", "--predictions")
    ran = run(*line, folder / "test.csv", "--json")
    assert ran.code == 2 and "is in" in ran.document["error"] and "outside" in ran.document["error"]
    assert sorted(path.name for path in folder.iterdir()) == ["train.csv"]
    assert run(*line, tmp_path / "test.csv").code == 0


def test_the_baseline_stands_next_to_the_prompt(run: Run, prompts: PromptLibrary, reviews: Path) -> None:
    line = ("evaluate", "news", reviews, "--library", prompts.folder, "--baseline")
    found = run(*line, "--json").document["baseline"]
    assert found["rows"] == 64 and found["scores"]["test"]["accuracy"] == 100.0
    assert "TF-IDF + logistic regression" in run(*line).stdout
    without = run(*line, "--split", "train", "--json")
    assert without.document["baseline"] is None and "No baseline" in without.stderr


def test_a_library_that_is_not_there_is_said_before_the_probe(
    run: Run, reviews: Path, tiny_model: Path
) -> None:
    ran = run("retrieve", reviews, "--model", tiny_model, "--library", "nosuch")
    assert ran.code == 2 and "no such folder" in ran.stderr and "probe" not in ran.stderr


def test_several_prompts_are_compared_row_by_row(
    run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.csv"
    line = ("evaluate", "news", "quiz", reviews, "--library", prompts.folder, "--split", "all")
    found = run(*line, "--predictions", answers, "--baseline", "--json").document
    (other,) = found["compared"]
    assert (found["prompt"], other["prompt"], other["than"]) == ("news", "quiz", "news")
    rows = read_rows(answers)
    right = {
        name: [row[column] == row["target"] for row in rows]
        for name, column in (("news", "answer"), ("quiz", "answer of quiz"))
    }
    gained = sum(new and not old for old, new in zip(right["news"], right["quiz"], strict=True))
    lost = sum(old and not new for old, new in zip(right["news"], right["quiz"], strict=True))
    assert (other["only_this_right"], other["only_other_right"]) == (gained, lost)
    difference = other["differences"]["accuracy"]
    assert difference["difference"] == pytest.approx(100 * (gained - lost) / len(rows))
    low, high = difference["interval"]
    assert low < difference["difference"] < high and difference["method"] == "Newcombe"
    alone = run("evaluate", "quiz", reviews, "--library", prompts.folder, "--split", "all", "--json").document
    assert other["scores"] == alone["scores"]
    assert "against news" in run(*line).stdout


def test_prompts_that_read_the_data_differently_are_not_compared(
    run: Run, tuned: Path, reviews: Path, tmp_path: Path
) -> None:
    first = SoftPrompt.load(tuned)
    card = first.card.model_copy(update={"template": "Is it good? {{ body }}\n"})
    other = SoftPrompt(first.value, card, first.key).save(tmp_path / "other.safetensors")
    data = tmp_path / "new.csv"
    data.write_text(reviews.read_text().replace("text,label", "body,stars", 1))
    ran = run("evaluate", tuned, other, data, "--json")
    assert ran.code == 2 and "template" in ran.document["error"] and "Is it good?" in ran.document["error"]
    both = run("evaluate", tuned, other, data, "--template", "{{ body }}", "--json").document
    assert both["compared"][0]["differences"].keys() == both["scores"].keys()


def test_the_baseline_is_compared_row_by_row(run: Run, prompts: PromptLibrary, reviews: Path) -> None:
    line = ("evaluate", "news", reviews, "--library", prompts.folder, "--baseline")
    found = run(*line, "--json").document
    gain = found["baseline"]["differences"]["accuracy"]
    assert gain["difference"] == found["scores"]["accuracy"] - found["baseline"]["scores"]["test"]["accuracy"]
    assert gain["interval"][0] < gain["difference"] <= gain["interval"][1]
    assert "difference to it" in run(*line).stdout


def test_answers_never_replace_the_data(run: Run, prompts: PromptLibrary, reviews: Path) -> None:
    before = reviews.read_bytes()
    ran = run(
        "evaluate", "news", reviews, "--library", prompts.folder, "--predictions", reviews, "--overwrite"
    )
    assert ran.code == 2 and "is the data itself" in ran.stderr and reviews.read_bytes() == before


def test_retrieve_by_a_prompt_takes_no_options_of_data(run: Run, prompts: PromptLibrary) -> None:
    line = ("retrieve", prompts.folder / "news.safetensors", "--library", prompts.folder)
    ran = run(*line, "--input", "nope", "--labels", "x,y")
    assert ran.code == 2 and "Leave out --input, --labels." in ran.stderr
    assert run(*line).code == 0


def test_similarity_of_prompts_of_two_models_is_noted(
    run: Run, prompts: PromptLibrary, tmp_path: Path
) -> None:
    news = prompts.get("news")
    card = news.card.model_copy(update={"model_fingerprint": "f00d"})
    foreign = replace(news, card=card).save(tmp_path / "foreign.safetensors")
    ran = run("similarity", "news", foreign, "--library", prompts.folder)
    assert ran.code == 0 and "no common space" in ran.stderr
    assert "no common space" not in run("similarity", "news", "quiz", "--library", prompts.folder).stderr


def test_a_file_in_other_splits_than_the_prompt_was_tuned_on_is_told(
    run: Run, tiny_model: Path, reviews: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    recipe = ("--length", 4, "--steps", 2, "--evaluate-every", 2, "--key-step", 1, "--batch-size", 4)
    tuned = run("tune", reviews, "--model", tiny_model, "--split-seed", 5, "--out", out, *recipe)
    assert tuned.code == 0, tuned.stderr
    told = "tuned on this file in other splits"
    assert told in " ".join(run("evaluate", out, reviews, "--model", tiny_model).stderr.split())
    same = run("evaluate", out, reviews, "--model", tiny_model, "--split-seed", 5)
    assert same.code == 0 and told not in " ".join(same.stderr.split())


def test_a_calibration_for_other_labels_is_left_out_and_told(
    run: Run, prompts: PromptLibrary, reviews: Path, tmp_path: Path
) -> None:
    made = prompts.get("news")
    fitted = Calibration(bias=[0.5, -0.5], temperature=2.0, rows=8)
    card = made.card.model_copy(update={"labels": ["bad", "good"], "calibration": fitted})
    file = SoftPrompt(made.value, card, made.key).save(tmp_path / "fitted.safetensors")
    own = run("evaluate", file, reviews, "--json")
    assert own.document["uncalibrated"] is not None and "calibration of" not in own.stderr
    other = run("evaluate", file, reviews, "--labels", "bad,good,neutral", "--json")
    assert other.document["uncalibrated"] is None
    told = " ".join(other.stderr.split())
    assert "for the labels bad, good and not used: reviews has others" in told
    for option in (("--no-calibration",), ("--evaluation", "generate")):
        ran = run("evaluate", file, reviews, "--labels", "bad,good,neutral", *option)
        assert ran.code == 0 and "for the labels" not in ran.stderr
