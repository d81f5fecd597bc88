"""Studies of other people: tables and prompts that are as they should be, and all the ways in which they are not."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spoton.errors import DataError, PromptError, SpotonError
from spoton.study.analysis.analyse import analyse
from spoton.study.results.import_results import import_study, read_families, read_prompts, read_scores
from spoton.study.results.study_results import Results, Score, load_results

TABLE = "source,target,seed,score\n,x,0,50\na,x,0,60\nb,x,0,55\n"


@pytest.fixture
def csv_of(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "scores.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_long_format_with_seeds(csv_of: Any) -> None:
    found = import_study(csv_of(TABLE + "a,x,1,62\n"))
    assert found.sources == ("a", "b") and found.targets == ("x",)
    assert Score("x", "a", 1, 62.0) in found.validation and Score("x", None, 0, 50.0) in found.validation
    assert analyse(found).change("a", "x") is not None


@pytest.mark.parametrize("name", ["", "none", "None", "BASELINE", "scratch", "from-scratch", "from_scratch"])
def test_names_of_tuning_from_scratch(csv_of: Any, name: str) -> None:
    (score,) = read_scores(csv_of(f"source,target,score\n{name},x,50\n")).scores
    assert score.source is None


def test_rows_that_are_no_transfer(csv_of: Any) -> None:
    text = "zero-shot,x,,30\nmajority,x,,40\nmethod:model-tuning,x,0,90\nmethod:weighted-average@3,x,0,70\n"
    found = import_study(csv_of(TABLE + text))
    assert found.zero_shot == {"x": 30.0} and found.majority == {"x": 40.0}
    assert set(found.extra) == {"model-tuning", "weighted-average@3"}
    analysis = analyse(found)
    tuned, average = analysis.row("model-tuning"), analysis.row("weighted-average", None, 3)
    assert tuned is not None and tuned.absolute.mean == 40.0
    assert average is not None and average.absolute.mean == 20.0


def test_what_spreadsheets_do_to_a_file(csv_of: Any) -> None:
    odd = b'\xef\xbb\xbf target , source ,score, notes\r\n x ,, 50 ,\r\n x , a , 6e1 ,"one, two"\r\n'
    assert import_study(csv_of(odd)).validation == (Score("x", None, None, 50.0), Score("x", "a", None, 60.0))


def test_fractions_are_scaled_with_their_deviation(csv_of: Any) -> None:
    path = csv_of("source,target,mean,std\n,x,0.5,0.01\na,x,0.6,0.02\n")
    found = import_study(path, scale=100, seeds_averaged=3)
    assert found.validation == (Score("x", None, None, 50.0, 1.0, 3), Score("x", "a", None, 60.0, 2.0, 3))
    with pytest.raises(DataError, match="--scale 100"):
        import_study(path)


def test_test_scores_a_baseline_and_families_of_their_own(csv_of: Any) -> None:
    scores = csv_of("source,target,score\na,x,60\n")
    baseline = csv_of("target,score\nx,50\n", "baseline.csv")
    test = csv_of("source,target,score\n,x,40\na,x,45\n", "test.csv")
    families = read_families(csv_of("task,family\na,nli\n", "families.csv"))
    found = import_study(scores, test=test, baseline=baseline, families=families, name="mine")
    assert found.reported_split == "test" and found.families == {"a": "nli"}
    assert found.metadata["name"] == "mine" and set(found.metadata["imported"]) == {
        "scores.csv", "test.csv", "baseline.csv",
    }  # fmt: skip
    change = analyse(found).change("a", "x")
    assert change is not None and change.gain == 5.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has the columns (none)"),
        ("source;target;score\na;x;1\n", "has the columns source;target;score; expected source, target"),
        ("source,target\na,x\n", "expected source, target, score or mean"),
        ("source,target,score\n", "0 source tasks"),
        ("source,target,score\na,x,60\n", "0 scores from scratch"),
        ("source,target,score\n,x,60\n", "0 source tasks"),
        (TABLE + "a,x\n", "line 5: found 2 cells, expected 4"),
        (TABLE + "a,x,1,2,3\n", "line 5: found 5 cells, expected 4"),
        (TABLE + "a,x,1,high\n", "line 5: score is 'high', not a number"),
        (TABLE + "a,x,1,nan\n", "line 5: score is 'nan', not a number"),
        (TABLE + "a,x,1,\n", "line 5: score is empty"),
        (TABLE + "a,x,1.5,60\n", "line 5: seed is 1.5, no whole number"),
        (TABLE + "a,x,one,60\n", "line 5: seed is 'one', not a number"),
        (TABLE + "a,,1,60\n", "line 5: the target is empty"),
        (TABLE + "a,x,0,61\n", "x from a, seed 0 has more than one score"),
        (TABLE + "a,x,1,160\n", "x from a, seed 1 is 160.0"),
        (TABLE + "method:weighted-average@three,x,0,60\n", "weighted-average@three"),
        (b"source,target,score\n\xff\xfe,x,60\n", "cannot be read as CSV"),
        ('source,target,score\n"a,x,60\n', "line 2: found 1 cells, expected 3"),
    ],
)
def test_damaged_tables_are_told_with_their_line(csv_of: Any, text: str | bytes, told: str) -> None:
    with pytest.raises(SpotonError) as caught:
        analyse(import_study(csv_of(text)))
    assert told in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path, csv_of: Any) -> None:
    with pytest.raises(DataError, match="no file"):
        import_study(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        import_study(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        import_study(csv_of(TABLE), keys=tmp_path / "keys")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Keys of a, b and x, in every format."""
    folder = tmp_path / "keys"
    folder.mkdir()
    draw = np.random.default_rng(0)
    np.save(folder / "a.npy", draw.standard_normal((3, 8)))
    torch.save({"prompt": torch.randn(3, 8)}, folder / "b.0.pt")
    torch.save(torch.randn(5, 8), folder / "b.1.pt")
    np.save(folder / "x.0.npy", draw.standard_normal((3, 8)).astype(np.float32))
    (folder / "README.md").write_text("not a prompt")
    return folder


def test_prompts_are_found_by_task_and_seed(prompts: Path, csv_of: Any) -> None:
    found = import_study(csv_of(TABLE), keys=prompts)
    assert set(found.source_keys) == {("a", 0), ("b", 0), ("b", 1)} and set(found.target_keys) == {("x", 0)}
    analysis = analyse(found)
    assert set(analysis.similarities) == {"average_tokens", "per_token_average", "maximum_token"}
    assert [one.n for one in analysis.correlations["maximum_token"]] == [2]  # b, seed 1 has no score


def test_final_prompts_stand_in_for_keys_and_the_study_says_so(prompts: Path, csv_of: Any) -> None:
    found = import_study(csv_of(TABLE), values=prompts)
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


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_nothing_in_a_prompt_file_is_executed(prompts: Path, suffix: str) -> None:
    harm = prompts / "harm"
    path = prompts / f"c{suffix}"
    if suffix == ".pt":
        path.write_bytes(pickle.dumps(Harmful(harm)))
    else:
        np.save(path, np.array([Harmful(harm)], dtype=object), allow_pickle=True)
    with pytest.raises(PromptError) as caught:
        read_prompts(prompts)
    assert str(path) in str(caught.value) and not harm.exists()


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
    np.save(prompts / "x.1.npy", np.ones((3, 9)))
    with pytest.raises(DataError, match="width"):
        analyse(import_study(csv_of(TABLE), keys=prompts))
    np.save(prompts / "stranger.npy", np.ones((3, 8)))
    with pytest.raises(DataError, match="stranger"):
        import_study(csv_of(TABLE), keys=prompts)


def test_a_folder_without_prompts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file ending in"):
        read_prompts(tmp_path)


def test_what_is_imported_is_kept(prompts: Path, csv_of: Any, tmp_path: Path) -> None:
    found = import_study(csv_of(TABLE), keys=prompts, families={"a": "nli"})
    found.save(tmp_path / "study")
    again: Results = load_results(tmp_path / "study")
    assert again.validation == found.validation and again.families == found.families
    assert all(np.array_equal(again.source_keys[place], key) for place, key in found.source_keys.items())
