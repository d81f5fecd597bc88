"""`spoton tasks`: the catalog as a table and as JSON, and a task of a local folder."""

from pathlib import Path

import pytest

from spoton.errors import DownloadError
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
    options = (
        "--data-dir",
        str(tmp_path / "data"),
        "--protocol",
        protocol,
        "--form",
        "t5",
        "--prefix",
        "none",
        "--json",
    )
    found = run("tasks", "show", "superglue/boolq", *options).document
    assert (found["name"], found["protocol"]) == ("superglue_boolq", protocol)
    assert found["source"] == f"folder:data/boolq, protocol {protocol}"
    assert found["examples"][0] == {"input": "passage: p0 question: q0", "target": "True"}
    assert found["splits"]["test"] == {"honest": 2, "paper": 4}[protocol]


def test_the_form_is_that_of_the_default_model_or_as_asked(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "data" / "boolq", ROWS)
    show = ("tasks", "show", "superglue/boolq", "--data-dir", str(tmp_path / "data"), "--json")
    natural, own = run(*show).document, run(*show, "--form", "t5").document
    assert (natural["form"], natural["labels"]) == ("natural", ["No", "Yes"])
    assert natural["examples"][0] == {"input": "p0\nQuestion: q0?\nAnswer:", "target": "Yes"}
    assert "Answer Yes or No." in natural["instruction"]
    assert (own["form"], own["labels"]) == ("t5", ["False", "True"])
    assert own["examples"][0]["input"] == "boolq passage: p0 question: q0"
    assert natural["splits"] == own["splits"] and natural["data_hash"] != own["data_hash"]


def test_options_of_the_catalog_do_not_fit_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "x,a\ny,b\n" * 5)
    ran = run("tasks", "show", str(tmp_path / "a.csv"), "--protocol", "paper", "--json")
    assert ran.code == 2 and "to which protocol never applies" in ran.document["error"]


def test_labels_with_commas_can_be_named(run: Run, tmp_path: Path) -> None:
    rows = "".join(f't{i},"{label}"\n' for i in range(10) for label in ("red, dark", "blue", "red"))
    (tmp_path / "colours.csv").write_text(f"text,label\n{rows}")
    show = ("tasks", "show", str(tmp_path / "colours.csv"), "--json")
    named = run(*show, "--label", "red", "--label", "red, dark", "--label", "blue")
    assert named.document["labels"] == ["red", "red, dark", "blue"] and "read as labels" not in named.stderr
    split = run(*show, "--labels", "red, dark,blue,red")
    assert split.code == 2 and "'red, dark' (10 rows)" in split.document["error"]
    missing = run(*show, "--labels", "colours.txt")
    assert missing.code == 2 and "no file colours.txt" in missing.stderr


def test_a_task_of_ones_own_and_a_damaged_one(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "rows.csv").write_text(f"text,code\n{rows}")
    file = tmp_path / "mine.yaml"
    definition = (
        "name: mine\ndata_files: {train: rows.csv}\ndoc_to_text: '{{ text }}?'\ndoc_to_target: '{{ code }}'\n"
        "labels: {a: good, b: bad}\nmetrics: [accuracy]\n"
    )
    file.write_text(definition)
    shown = run("tasks", "show", "mine", "--task-file", file, "--json").document
    assert (shown["labels"], shown["source"]) == (["good", "bad"], "file:rows.csv")
    assert run("tasks", "show", "mine").code == 2
    file.write_text(definition.replace("doc_to_text", "doc_to_txt"))
    ran = run("tasks", "show", "mine", "--task-file", file, "--json")
    assert ran.code == 2 and ran.document["kind"] == "DataError"
    assert f"{file}: " in ran.document["error"] and "did you mean doc_to_text?" in ran.document["error"]
    ran = run("tasks", "show", "rows.csv", "--task-file", tmp_path / "gone.yaml", "--json")
    assert ran.code == 2 and "gone.yaml" in ran.document["error"]


def test_a_task_of_the_catalog_without_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOTON_DATA_DIR", raising=False)
    monkeypatch.setattr("spoton.tasks.sources.hub_rows", raise_download_error)
    ran = run("tasks", "show", "superglue/wsc", "--json")
    shown = ran.document
    assert ran.code == 0
    assert (shown["doc_to_text"], shown["doc_to_target"]) == ("{{ text }}", "{{ span1_text }}")
    assert (shown["name"], shown["template_source"], shown["size"]) == ("wsc", "t5", 554)
    assert "three ways" in shown["rows_missing"] and "examples" not in shown and "splits" not in shown
    assert "{{ span1_text }}" in run("tasks", "show", "wsc").stdout
    ran = run("tasks", "show", "mixture:superglue", "--json")
    assert ran.code == 2 and ran.document["kind"] == "DownloadError"


def raise_download_error(*arguments: object, **others: object) -> None:
    raise DownloadError("no network")


def test_each_note_has_a_line_of_its_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,mood\n" + "".join(f"t{i},{('up', 'down')[i % 2]}\n" for i in range(20)))
    shown = run("tasks", "show", str(path)).stdout
    assert (
        "., " not in shown
        and "\n" in shown[shown.index("--target names another.") : shown.index("Targets are")]
    )
