"""`spoton tasks`: the catalog as a table and as JSON, and a task of a local folder."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.tasks.test_sources import ROWS, write


def test_the_papers_study_has_16_sources_and_10_targets(run: Run) -> None:
    found = run("tasks", "list", "--study", "spot-paper", "--json").document
    roles = [task["study"]["spot-paper"] for task in found]
    assert roles == ["source"] * 16 + ["target"] * 10
    assert [task["size"] for task in found[:2]] == [364868892, 942314]
    table = run("tasks", "list", "--study", "spot-paper").stdout
    assert table.index("doc_nli") < table.index("superglue_boolq")


def test_every_task_has_family_size_and_metrics(run: Run) -> None:
    found = {task["name"]: task for task in run("tasks", "list", "--json").document}
    assert len(found) > 100
    assert all(task["family"] and task["metrics"] and task["size"] > 0 for task in found.values())
    assert found["mrpc"]["main_metric"] == "mean" and found["mrpc"]["metrics"] == ["f1", "accuracy"]
    assert found["piqa"]["sources"] == ["folder", "archive", "hub:ybisk/piqa@refs/convert/parquet"]
    assert found["wic"]["aliases"] == ["superglue/wic"]


def test_an_unknown_study(run: Run) -> None:
    ran = run("tasks", "list", "--study", "spot", "--json")
    assert ran.code == 2 and "spot-paper" in ran.document["error"]


@pytest.mark.parametrize("protocol", ["honest", "paper"])
def test_a_task_of_a_local_folder(run: Run, tmp_path: Path, protocol: str) -> None:
    write(tmp_path / "data" / "boolq", ROWS)
    options = ("--data-dir", str(tmp_path / "data"), "--protocol", protocol, "--prefix", "none", "--json")
    found = run("tasks", "show", "superglue/boolq", *options).document
    assert (found["name"], found["protocol"]) == ("superglue_boolq", protocol)
    assert found["source"] == f"folder:data/boolq, protocol {protocol}"
    assert found["examples"][0] == {"input": "passage: p0 question: q0", "target": "True"}
    assert found["splits"]["test"] == {"honest": 2, "paper": 4}[protocol]


def test_options_of_the_catalog_do_not_fit_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "x,a\ny,b\n" * 5)
    ran = run("tasks", "show", str(tmp_path / "a.csv"), "--protocol", "paper", "--json")
    assert ran.code == 2 and "to which protocol never applies" in ran.document["error"]
