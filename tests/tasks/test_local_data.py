"""The real rows of a local data folder: every task there loads, with the counts that its README states.

The folder is SPOTON_TEST_DATA, or `../shared/data` beside the repository; without it these tests are skipped.
"""

import functools
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from spoton.tasks import load_task
from spoton.tasks.catalog import is_task, task_info
from spoton.tasks.protocol import Divided, Protocol, divide
from spoton.tasks.render import Rendered, render_rows
from spoton.tasks.sources import find_rows

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPOTON_TEST_DATA") or ROOT / "../shared/data")

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder with real rows: set SPOTON_TEST_DATA to one"
)

TASKS = sorted(path.name for path in DATA.iterdir() if path.is_dir()) if DATA.is_dir() else []


def stated() -> dict[str, tuple[int, int, str]]:
    """Task -> training rows, validation rows and the cell with the label counts, from the README's tables."""
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = [row for row in cells if len(row) > 3 and row[0] in TASKS]
    sizes = {row[0]: [int(size.replace(",", "")) for size in row[1].split("/")] for row in rows}
    return {row[0]: (sizes[row[0]][0], sizes[row[0]][1], row[2]) for row in rows}


def counts(cell: str, split: str) -> dict[str, int]:
    """The label counts of a split: `train: a 1, b 2; validation: a 1`."""
    part = next((part for part in cell.split(";") if part.strip().startswith(f"{split}:")), "")
    return {
        label: int(number.replace(",", ""))
        for label, number in re.findall(
            r"(?:^|,)\s*(\S.*?) ([\d,]*\d)(?=,|$)", part.partition(":")[2].strip()
        )
    }


@functools.cache
def rendered(name: str) -> dict[str, Rendered]:
    """The examples of each split; rendering is what takes the time."""
    info = task_info(name)
    return render_rows(info, find_rows(info, data_dir=DATA), "task")


def load(name: str, protocol: Protocol = "paper") -> Divided:
    return divide(task_info(name), rendered(name), protocol, seed=0)


def test_the_readme_is_understood() -> None:
    assert set(stated()) == set(TASKS) and len(TASKS) >= 45
    assert counts(stated()["sst5"][2], "train")["very negative"] == 1026
    assert sum(bool(counts(cell, "train")) for _, _, cell in stated().values()) >= 40


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_stated_rows(name: str) -> None:
    assert is_task(name)
    info, task = task_info(name), load(name)
    train, validation, cell = stated()[name]
    assert find_rows(info, data_dir=DATA).source.startswith("folder:")
    if name == "wsc":
        # Only the schemas whose candidate is the referent are tuned on.
        assert len(task.train) == counts(cell, "train")["True"]
        told = Counter(row.references[0] for row in task.validation)
        assert told == counts(cell, "validation") and len(task.validation) == validation
        return
    assert (len(task.train), len(task.validation)) == (train, validation)
    for split, rows in (("train", task.train), ("validation", task.validation)):
        expected = Counter[str]()
        for label, number in counts(cell, split).items():
            expected[info.words.get(label, label)] += number
        if expected and info.labels is not None:
            assert Counter(row.target for row in rows) == expected


@pytest.mark.parametrize("name", TASKS)
def test_the_honest_protocol_scores_rows_that_choose_nothing(name: str) -> None:
    task, whole = load(name, "honest"), load(name)
    assert Counter([*task.validation, *task.test]) == Counter(whole.validation)
    # Halves, but for groups that may not be parted.
    assert abs(len(task.validation) - len(task.test)) <= 0.1 * len(whole.validation)
    if name in ("multirc", "squad", "cosmos_qa", "dream", "e2e_nlg"):
        inputs = [{row.input for row in split} for split in (task.validation, task.test)]
        assert not inputs[0] & inputs[1]


def test_a_task_as_a_whole() -> None:
    task = load_task("superglue/wic", data_dir=DATA)
    assert task.splits() == {"train": 5428, "validation": 319, "test": 319}
    assert task.source.endswith("/wic, protocol honest") and task.metric == "accuracy"
    assert load_task("glue/mrpc", data_dir=DATA).metrics == ("mean", "f1", "accuracy")


def test_definite_pronouns_are_resolved_to_a_candidate() -> None:
    rows = [
        json.loads(line)
        for line in (DATA / "definite_pronoun_resolution" / "validation.jsonl").read_text("utf-8").split("\n")
        if line
    ]
    task = load("definite_pronoun_resolution")
    assert [row.target for row in task.validation] == [row["candidates"][row["label"]] for row in rows]
    # The form is T5's, which takes a space, a full stop or a comma behind the pronoun.
    assert sum("*" in row.input for row in task.validation) >= 0.97 * len(rows)
