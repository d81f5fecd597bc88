"""Studies of other people: tables and prompts that are as they should be, and all the ways in which they are not."""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from spoton.errors import DataError, PromptError, SpotonError, StudyError
from spoton.study.analysis.analyse import analyse
from spoton.study.results.collect import results_in
from spoton.study.results.import_results import ImportedFiles, import_study, require_free
from spoton.study.results.prompt_files import read_prompts
from spoton.study.results.score_tables import ReadOptions, read_families, read_scores
from spoton.study.results.study_results import Score, StudyResults

TABLE = "source,target,seed,score\n,x,0,50\na,x,0,60\nb,x,0,55\n"


def imported(
    scores: Path, *, options: dict[str, Any] | None = None, name: str = "", **files: Any
) -> StudyResults:
    """What an import of these files gives."""
    return import_study(ImportedFiles(scores, **files), ReadOptions(**options or {}), name)


@pytest.fixture
def csv_of(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "scores.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_long_format_with_seeds(csv_of: Any) -> None:
    found = imported(csv_of(TABLE + "a,x,1,62\n"))
    assert found.sources == ("a", "b") and found.targets == ("x",)
    assert Score("x", "a", 1, 62.0) in found.validation and Score("x", None, 0, 50.0) in found.validation
    assert analyse(found).change("a", "x") is not None


@pytest.mark.parametrize("name", ["", "none", "None", "BASELINE", "scratch", "from-scratch", "from_scratch"])
def test_names_of_tuning_from_scratch(csv_of: Any, name: str) -> None:
    (score,) = read_scores(csv_of(f"source,target,score\n{name},x,50\n")).scores
    assert score.source is None


def test_rows_that_are_no_transfer(csv_of: Any) -> None:
    text = "zero-shot,x,,30\nmajority,x,,40\nmethod:model-tuning,x,0,90\nmethod:weighted-average@3,x,0,70\n"
    found = imported(csv_of(TABLE + text))
    assert found.zero_shot == {"x": 30.0} and found.majority == {"x": 40.0}
    assert set(found.extra) == {"model-tuning", "weighted-average@3"}
    analysis = analyse(found)
    tuned, average = analysis.row("model-tuning"), analysis.row("weighted-average", None, 3)
    assert tuned is not None and tuned.absolute.mean == 40.0
    assert average is not None and average.absolute.mean == 20.0


def test_what_spreadsheets_do_to_a_file(csv_of: Any) -> None:
    odd = b'\xef\xbb\xbf target , source ,score, notes\r\n x ,, 50 ,\r\n x , a , 6e1 ,"one, two"\r\n'
    assert imported(csv_of(odd)).validation == (Score("x", None, None, 50.0), Score("x", "a", None, 60.0))


def test_fractions_are_scaled_with_their_deviation(csv_of: Any) -> None:
    path = csv_of("source,target,mean,std\n,x,0.5,0.01\na,x,0.6,0.02\n")
    found = imported(path, options={"scale": 100, "seeds_averaged": 3})
    assert found.validation == (Score("x", None, None, 50.0, 1.0, 3), Score("x", "a", None, 60.0, 2.0, 3))
    with pytest.raises(DataError, match="--scale 100"):
        imported(path)


def test_test_scores_a_baseline_and_families_of_their_own(csv_of: Any) -> None:
    scores = csv_of("source,target,score\na,x,60\n")
    baseline = csv_of("target,score\nx,50\n", "baseline.csv")
    test = csv_of("source,target,score\n,x,40\na,x,45\n", "test.csv")
    families, learned = read_families(csv_of("Task,Family,learned\nA,nli,no\n", "families.csv"))
    found = imported(scores, test=test, baseline=baseline, families=families, learned=learned, name="mine")
    assert found.reported_split == "test" and found.families == {"a": "nli"}
    assert found.learned_sources == {"a": False}
    assert found.metadata["name"] == "mine" and set(found.metadata["imported"]) == {
        "scores.csv", "test.csv", "baseline.csv",
    }  # fmt: skip
    change = analyse(found).change("a", "x")
    assert change is not None and change.gain == 5.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has the columns (none)"),
        ("from;to;points\na;x;1\n", "has the columns from, to, points; expected source, target, score"),
        ("source,target\na,x\n", "has the columns source, target; expected source, target, score"),
        ("source,target,score\n", "0 source tasks"),
        ("source,target,score\na,x,60\n", "0 scores from scratch"),
        ("source,target,score\n,x,60\n", "0 source tasks"),
        (TABLE + "a,x\n", "line 5: found 2 cells, expected 4"),
        (TABLE + "a,x,1,2,3\n", "line 5: found 5 cells, expected 4"),
        (TABLE + "a,x,1,high\n", "line 5: score is 'high', not a number"),
        (TABLE + "a,x,1,nan\n", "line 5: score is 'nan', not a number"),
        (TABLE + "a,x,1,\n", "line 5: the score is empty"),
        (TABLE + "a,x,1.5,60\n", "line 5: seed is 1.5, not a whole number"),
        (TABLE + "a,x,one,60\n", "line 5: seed is 'one', not a number"),
        (TABLE + "a,,1,60\n", "line 5: the target is empty"),
        (TABLE + "a,x,0,61\n", "x from a, seed 0 has more than one score: "),
        (TABLE + "a,x,1,160\n", "line 5: the score is 160"),
        (TABLE + "method:weighted-average@three,x,0,60\n", "weighted-average@three"),
        (b"source,target,score\n\xff\xfe,x,60\n", "cannot be read as a table"),
        ('source,target,score\n"a,x,60\n', "line 2: found 1 cells, expected 3"),
    ],
)
def test_damaged_tables_are_told_with_their_line(csv_of: Any, text: str | bytes, told: str) -> None:
    with pytest.raises(SpotonError) as caught:
        analyse(imported(csv_of(text)))
    assert told in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path, csv_of: Any) -> None:
    with pytest.raises(DataError, match="no file"):
        imported(tmp_path / "none.csv")
    with pytest.raises(DataError, match="Cannot read"):
        imported(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        imported(csv_of(TABLE), keys=tmp_path / "keys")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Keys of a, b and x, in every format."""
    folder = tmp_path / "keys"
    folder.mkdir()
    draw = np.random.default_rng(0)
    np.save(folder / "a.npy", draw.standard_normal((3, 8)))
    torch.save({"prompt": torch.from_numpy(draw.standard_normal((3, 8)))}, folder / "b.0.pt")
    torch.save(torch.from_numpy(draw.standard_normal((5, 8))), folder / "b.1.pt")
    np.save(folder / "x.0.npy", draw.standard_normal((3, 8)).astype(np.float32))
    (folder / "README.md").write_text("not a prompt")
    return folder


def test_prompts_are_found_by_task_and_seed(prompts: Path, csv_of: Any) -> None:
    found = imported(csv_of(TABLE), keys=prompts)
    assert set(found.source_keys) == {("a", 0), ("b", 0), ("b", 1)} and set(found.target_keys) == {("x", 0)}
    analysis = analyse(found)
    assert set(analysis.similarities) == {"average_tokens", "per_token_average", "maximum_token"}
    assert [one.n for one in analysis.correlations["maximum_token"]] == [2]  # b, seed 1 has no score


def test_final_prompts_stand_in_for_keys_and_the_study_says_so(prompts: Path, csv_of: Any) -> None:
    found = imported(csv_of(TABLE), values=prompts)
    assert found.source_keys == found.source_values and "no keys" in found.metadata["notes"][0]


def test_a_task_with_dots_in_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "mnli.v1.1.npy", np.ones((2, 4)))
    np.save(tmp_path / "qqp.fast.npy", np.ones((2, 4)))
    assert set(read_prompts(tmp_path)) == {("mnli.v1", 1), ("qqp.fast", 0)}


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", "", ".npy"])
def test_nothing_in_a_prompt_file_is_executed(prompts: Path, suffix: str) -> None:
    harm = prompts / "harm"
    path = prompts / f"c{suffix}"
    if suffix != ".npy":
        path.write_bytes(pickle.dumps(Harmful(harm), protocol=2))
    else:
        np.save(path, np.array([Harmful(harm)], dtype=object), allow_pickle=True)
    with pytest.raises(PromptError) as caught:
        read_prompts(prompts)
    assert str(path) in str(caught.value) and not harm.exists()
    assert "weights_only" not in str(caught.value)  # torch advises to switch the protection off


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("c.npy", np.ones(3), "shape"), ("c.npy", np.ones((2, 2), dtype=np.int64), "floating"),
        ("c.npy", np.full((2, 8), np.nan), "finite"), ("a.0.npy", np.ones((3, 8)), "more than one prompt of a"),
    ],
)  # fmt: skip
def test_odd_prompts_are_told(prompts: Path, name: str, array: Any, told: str) -> None:
    np.save(prompts / name, array)
    with pytest.raises(SpotonError, match=told):
        read_prompts(prompts)


def test_damaged_prompts_are_told(prompts: Path) -> None:
    (prompts / "c.npy").write_bytes(b"damaged")
    with pytest.raises(PromptError, match=r"c\.npy"):
        read_prompts(prompts)


def test_prompts_of_other_models_and_of_unknown_tasks_are_told(prompts: Path, csv_of: Any) -> None:
    np.save(prompts / "stranger.npy", np.ones((3, 8)))
    with pytest.raises(DataError, match="stranger"):
        imported(csv_of(TABLE), keys=prompts)
    np.save(prompts / "x.1.npy", np.ones((3, 9)))
    with pytest.raises(DataError, match=r"a\.npy has rows of width 8 and .*x\.1\.npy of width 9"):
        imported(csv_of(TABLE), keys=prompts)


def test_a_folder_without_prompts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts(tmp_path)


def test_what_is_imported_is_kept(prompts: Path, csv_of: Any, tmp_path: Path) -> None:
    found = imported(csv_of(TABLE), keys=prompts, families={"a": "nli"})
    found.save(tmp_path / "study")
    again: StudyResults = results_in(tmp_path / "study")
    assert again.validation == found.validation and again.families == found.families
    assert all(np.array_equal(again.source_keys[place], key) for place, key in found.source_keys.items())


def test_headings_in_any_case_and_under_the_names_that_people_use(csv_of: Any) -> None:
    found = imported(csv_of("Source,Target,Accuracy,StdErr,n\nnone,x,50,1,4\na,x,60,0.5,4\n"))
    assert found.validation == (Score("x", None, None, 50.0, 2.0, 4), Score("x", "a", None, 60.0, 1.0, 4))
    with pytest.raises(DataError, match="--seeds-averaged"):
        imported(csv_of("source,target,score,stderr\nnone,x,50,1\na,x,60,1\n"))
    with pytest.raises(DataError, match="accuracy, performance, each of which may be the score"):
        imported(csv_of("source,target,accuracy,performance\nnone,x,50,1\n"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scores.tsv", "source\ttarget\tscore\nnone\tx\t50\na\tx\t60\n"),
        ("scores.csv", "source;target;score\nnone;x;50\na;x;60\n"),
        ("scores.txt", "source|target|score\nnone|x|50\n\na|x|60\n"),
        ("scores.jsonl", '{"Source": null, "target": "x", "score": 50}\n{"Source": "a", "target": "x", "score": 60}\n'),
        ("scores.json", '[{"source": "", "target": "x", "score": 50}, {"source": "a", "target": "x", "score": 60.0}]'),
    ],
)  # fmt: skip
def test_formats_of_tables(csv_of: Any, name: str, text: str) -> None:
    assert imported(csv_of(text, name)).validation == (
        Score("x", None, None, 50.0),
        Score("x", "a", None, 60.0),
    )


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {"source": [None, "a"], "target": ["x", "x"], "seed": [0, 0], "score": [50.0, 60.0]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "scores.parquet")
    found = imported(tmp_path / "scores.parquet")
    assert found.validation == (Score("x", None, 0, 50.0), Score("x", "a", 0, 60.0))
    (tmp_path / "scores.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match="not a Parquet file"):
        imported(tmp_path / "scores.parquet")


WIDE = "source,x,y\nnone,50,40 \N{PLUS-MINUS SIGN} 1.5\na,60 (2),-\nb,55,45\n"


def test_a_matrix_is_read_if_it_is_called_one(csv_of: Any) -> None:
    found = imported(csv_of(WIDE), options={"wide": True, "seeds_averaged": 3})
    assert found.sources == ("a", "b") and found.targets == ("x", "y")
    assert Score("y", None, None, 40.0, 1.5, 3) in found.validation
    assert Score("x", "a", None, 60.0, 2.0, 3) in found.validation and len(found.validation) == 5
    with pytest.raises(DataError, match="Use --wide"):
        imported(csv_of(WIDE))
    with pytest.raises(DataError, match="line 2, column y: found 'high'"):
        imported(csv_of("source,x,y\nnone,50,high\n"), options={"wide": True})


@pytest.mark.parametrize("heading", ["source,target,score", "source,target,seed,mean", "from,to,accuracy"])
def test_a_long_table_is_not_read_as_a_matrix(csv_of: Any, heading: str) -> None:
    """Of numbered tasks and seeds every cell is a number: target, seed and score would be the targets."""
    seed = ",0" if "seed" in heading else ""
    with pytest.raises(DataError, match="Leave out --wide"):
        imported(csv_of(f"{heading}\nnone,1{seed},50\n2,1{seed},60\n"), options={"wide": True})


def test_a_baseline_under_any_name(csv_of: Any) -> None:
    assert imported(csv_of("source,target,score\nrandom,x,50\na,x,60\n")).sources == ("a",)
    with pytest.raises(DataError) as caught:
        imported(csv_of("source,target,score\nnone,x,50\nrandom,x,40\na,x,60\n"))
    assert "line 2" in str(caught.value) and "line 3" in str(caught.value)
    assert "--scratch-name 'none'" in str(caught.value)
    named = csv_of("source,target,score\nvanilla,x,50\nrandom,x,40\na,x,60\n")
    found = imported(named, options={"scratch_name": "Vanilla"})
    assert found.sources == ("random", "a") and Score("x", None, None, 50.0) in found.validation


def test_a_score_that_is_there_twice_is_told_with_both_places(csv_of: Any) -> None:
    with pytest.raises(DataError, match=r"scores\.csv, line 3, and .*scores\.csv, line 5"):
        imported(csv_of(TABLE + "a,x,0,61\n"))
    baseline = csv_of("target,seed,score\nx,0,50\n", "baseline.csv")
    with pytest.raises(DataError, match=r"scores\.csv, line 2, and .*baseline\.csv, line 2"):
        imported(csv_of(TABLE), baseline=baseline)


def test_tasks_that_differ_by_case_alone_are_noted(csv_of: Any) -> None:
    (note,) = imported(csv_of("source,target,score\nnone,CB,50\ncb,CB,99\n")).metadata["notes"]
    assert "cb and CB differ by case alone" in note


def test_fractions_next_to_percentages(csv_of: Any) -> None:
    scores = csv_of("source,target,score\na,x,60\nb,x,55\n")
    baseline = csv_of("target,score\nx,0.5\n", "baseline.csv")
    with pytest.raises(DataError, match="between -1 and 1"):
        imported(scores, baseline=baseline)
    both = csv_of("target,score\nx,0.5\ny,40\n", "baseline.csv")
    with pytest.raises(DataError, match="fractions next to percentages"):
        imported(scores, baseline=both)
    assert imported(scores, baseline=both, options={"accept_scale": True}).sources == ("a", "b")
    rows = "none,y,0.3\na,y,0.4\nb,y,0.5\n"
    with pytest.raises(DataError, match="all scores of y are between -1 and 1"):
        imported(csv_of("source,target,score\nnone,x,50\na,x,60\n" + rows))
    single = imported(csv_of("source,target,score\nnone,x,50\na,x,0.6\n"))
    assert "line 3: the score is 0.6" in single.metadata["notes"][0]


@pytest.mark.parametrize("std", ["-1", "80"])
def test_deviations_that_cannot_be(csv_of: Any, std: str) -> None:
    with pytest.raises(DataError, match="line 3: the standard deviation is"):
        imported(csv_of(f"source,target,score,std\nnone,x,50,1\na,x,60,{std}\n"))


def test_fractions_from_scratch_alone(csv_of: Any) -> None:
    table = "source,target,score\nnone,x,0.5\nnone,y,0.4\na,x,60\na,y,51\n"
    with pytest.raises(DataError, match="all scores from scratch are between -1 and 1"):
        imported(csv_of(table))
    assert imported(csv_of(table), options={"accept_scale": True}).validation[0].score == 0.5


def test_a_deviation_next_to_a_standard_error_is_refused(csv_of: Any) -> None:
    table = "source,target,score,std,stderr,n\nnone,x,50,1,0.6,3\na,x,60,,0.6,3\n"
    with pytest.raises(DataError, match=r"line 2: there is a standard deviation \(1\) and a standard error"):
        imported(csv_of(table))
    (_, after) = imported(csv_of(table.replace("50,1,0.6", "50,1,"))).validation
    assert after.std == pytest.approx(0.6 * math.sqrt(3))  # one of them in each row is clear


def test_prompts_without_a_suffix_in_folders_and_of_other_endings(tmp_path: Path) -> None:
    """As T5X, Prompt-Transferability and PEFT leave them."""
    (tmp_path / "mnli").mkdir()
    torch.save(torch.ones(3, 8), tmp_path / "mnli" / "task_prompt")
    (tmp_path / "mnli" / "config.json").write_text("{}")
    for seed in (0, 3):
        (tmp_path / "qqp").mkdir(exist_ok=True)
        np.save(tmp_path / "qqp" / f"seed{seed}.npy", np.ones((3, 8)))
    with (tmp_path / "sst2").open("wb") as file:
        np.save(file, np.ones((3, 8)))
    torch.save(torch.ones(3, 8), tmp_path / "rte.pth")
    torch.save({"prompt_embeddings": torch.ones(3, 8)}, tmp_path / "cb.bin")
    (tmp_path / "LICENSE").write_text("no prompt")
    (tmp_path / ".hidden").write_bytes(b"\x93NUMPY")
    found = read_prompts(tmp_path)
    assert set(found) == {("mnli", 0), ("qqp", 0), ("qqp", 3), ("sst2", 0), ("rte", 0), ("cb", 0)}
    np.save(tmp_path / "mnli" / "other.npy", np.ones((3, 8)))
    with pytest.raises(DataError, match="Expected one, or one for each seed"):
        read_prompts(tmp_path)


def test_an_underscore_separates_no_seed(prompts: Path, csv_of: Any) -> None:
    np.save(prompts / "a_1.npy", np.ones((3, 8)))
    with pytest.raises(DataError, match=r"prompts of a_1.*If 1 in a_1 is a seed, call the file a\.1"):
        imported(csv_of(TABLE), keys=prompts)


def test_names_are_those_of_the_tasks(tmp_path: Path) -> None:
    np.save(tmp_path / "mnli.npy", np.ones((2, 4)))
    np.save(tmp_path / "squad.1.npy", np.ones((2, 4)))
    assert set(read_prompts(tmp_path, ["MNLI", "squad.1"])) == {("MNLI", 0), ("squad.1", 0)}


def test_a_study_is_neither_overwritten_nor_mixed_with(tmp_path: Path) -> None:
    require_free(tmp_path, replace=False)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(StudyError, match="--replace"):
        require_free(tmp_path, replace=False)
    require_free(tmp_path, replace=True)
    (tmp_path / "study.yaml").write_text("")
    with pytest.raises(StudyError, match="study of its own"):
        require_free(tmp_path, replace=True)


def test_a_replaced_import_leaves_no_prompts_behind(prompts: Path, csv_of: Any, tmp_path: Path) -> None:
    imported(csv_of(TABLE), keys=prompts).save(tmp_path / "study")
    imported(csv_of(TABLE)).save(tmp_path / "study")
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["results.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="it is a pipe, not a regular file"):
        imported(tmp_path / name)


def test_json_lines_end_at_a_line_feed_alone(csv_of: Any) -> None:
    text = "".join(
        json.dumps({"source": source, "target": "x", "seed": 0, "score": score}, ensure_ascii=False) + "\n"
        for source, score in (("", 50), ("a\u2028c", 60), ("b", 55))
    )
    assert imported(csv_of(text, "scores.jsonl")).sources == ("a\u2028c", "b")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,x,60,1,-3", "line 3: n is -3"),
        ("a,x,60,1,2.5", "line 3: n is 2.5"),
        ("a,x,60,1,0", "line 3: n is 0"),
        ("zero-shot,x,40,,\nZero-Shot,x,41,,", "x has more than one score of Zero-Shot: .*line 3, and"),
        ("method:m,x,40,,\nmethod:m,x,41,,", "x has more than one score of method:m: .*line 3, and .*line 4"),
        ("method:,x,40,,", "line 3: the source is 'method:'"),
    ],
)
def test_rows_that_cannot_be_right(csv_of: Any, rows: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        imported(csv_of(f"source,target,score,stderr,n\n,x,50,1,3\n{rows}\nb,x,60,1,3\n"))


def test_two_columns_that_may_be_the_source(csv_of: Any) -> None:
    with pytest.raises(DataError, match="source, from, each of which may be the source"):
        imported(csv_of("source,from,target,score\n,a,x,50\n"))


def test_matrices_on_their_side_and_with_averages(csv_of: Any) -> None:
    wide = {"options": {"wide": True}}
    with pytest.raises(DataError, match=r"the column Baseline.*exchange rows and columns"):
        imported(csv_of("target,Baseline,a,b\nx,50,60,55\ny,40,50,45\n"), **wide)
    with pytest.raises(DataError, match=r"the column Avg\., which would count as a target"):
        imported(csv_of("source,x,y,Avg.\nnone,50,60,55\na,40,50,45\n"), **wide)


def test_a_matrix_that_pandas_wrote_with_its_index(tmp_path: Path) -> None:
    table = pyarrow.table({"x": [50.0, 60.0], "source": ["none", "a"]})
    table = table.replace_schema_metadata({b"pandas": b'{"index_columns": ["source"]}'})
    pyarrow.parquet.write_table(table, tmp_path / "wide.parquet")
    found = imported(tmp_path / "wide.parquet", options={"wide": True})
    assert (found.sources, found.targets) == (("a",), ("x",))


def test_json_that_is_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested more than 60 levels"):
        imported(tmp_path / "scores.json")
    (tmp_path / "results.json").write_text('{"a":' * 100_000)
    with pytest.raises(StudyError, match="nested more than 60 levels"):
        results_in(tmp_path)
