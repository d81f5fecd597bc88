"""Tasks of the user's own: a YAML file becomes a task with a name, or an error that names its field."""

from pathlib import Path

import openpyxl
import pytest

from spoton.errors import DataError, DownloadError
from spoton.tasks import load_task, read_definition, resolve_task

REVIEWS = """\
name: my_reviews
family: sentiment
data_files: {train: data/reviews.csv}
doc_to_text: "{{ title }}: {{ body }}"
doc_to_target: "{{ stars }}"
labels: {'1': bad, '5': good}
metrics: [accuracy, macro_f1]
license: CC0
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The YAML file beside a folder of data, seen from elsewhere."""
    monkeypatch.delenv("SPOTON_DATA_DIR", raising=False)
    (tmp_path / "task" / "data").mkdir(parents=True)
    rows = [f"t{i},b{i},{(1, 5)[i % 2]}" for i in range(40)]
    (tmp_path / "task" / "data" / "reviews.csv").write_text("\n".join(["title,body,stars", *rows]))
    path = tmp_path / "task" / "reviews.yaml"
    path.write_text(REVIEWS)
    return path


def rewritten(file: Path, old: str, new: str) -> Path:
    assert old in REVIEWS
    file.write_text(REVIEWS.replace(old, new))
    return file


def test_its_name_is_a_task(file: Path) -> None:
    task = resolve_task("my_reviews", task_files=[file])
    assert (task.name, task.family, task.license) == ("my_reviews", "sentiment", "CC0")
    assert task.source == "file:reviews.csv" and task.labels == ("bad", "good")
    assert task.metrics == ("accuracy", "macro_f1") and sum(task.splits().values()) == 40
    assert {(row.input, row.target) for row in task.train} <= {
        (f"t{i}: b{i}", ("bad", "good")[i % 2]) for i in range(40)
    }
    assert resolve_task("my_reviews", task_files=[file], seed=1).test != task.test
    assert load_task("my_reviews", own=[read_definition(file)]) == task


def test_sheets_of_its_workbook_that_are_not_read_are_told(file: Path) -> None:
    book = openpyxl.Workbook()
    for sheet in (book.active, book.create_sheet("June")):
        sheet.append(["title", "body", "stars"])
        for i in range(40):
            sheet.append([f"t{i}", f"b{i}", (1, 5)[i % 2]])
    book.save(file.parent / "reviews.xlsx")
    rewritten(file, "data/reviews.csv", "reviews.xlsx")
    heard: list[str] = []
    assert sum(resolve_task("my_reviews", task_files=[file], on_message=heard.append).splits().values()) == 40
    assert ["'June' is not" in note for note in heard] == [True]


def test_a_validation_file_is_kept_apart(file: Path) -> None:
    dev = "title,body,stars\n" + "".join(f"d{i},e{i},{(1, 5)[i % 2]}\n" for i in range(8))
    (file.parent / "dev.csv").write_text(dev)
    rewritten(file, "data/reviews.csv}", "data/reviews.csv, validation: dev.csv}")
    honest, paper = (
        resolve_task("my_reviews", task_files=[file], protocol=name) for name in ("honest", "paper")
    )
    assert honest.splits() == {"train": 40, "validation": 4, "test": 4}
    assert paper.validation == paper.test and len(paper.test) == 8


def test_several_files_and_mixtures(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(
        REVIEWS.replace("my_reviews", "other").replace("data/", "task/data/") + "aliases: [mine/other]\n"
    )
    mixed = resolve_task("mixture:my_reviews,mine/other", task_files=[file, other])
    assert mixed.name == "mixture-my_reviews+other" and mixed.labels == ("bad", "good")
    assert "my_reviews 0.5000 (file:reviews.csv); other 0.5000 (file:reviews.csv)" in mixed.source
    with pytest.raises(DataError, match=r"no bundled task 'my_review'.*mean my_reviews"):
        resolve_task("my_review", task_files=[file])


def test_rows_may_come_from_a_folder(file: Path, tmp_path: Path) -> None:
    rewritten(file, "data_files: {train: data/reviews.csv}\n", "")
    (tmp_path / "my_reviews").mkdir()
    lines = [f'{{"title": "t{i}", "body": "b", "stars": {(1, 5)[i % 2]}}}' for i in range(40)]
    (tmp_path / "my_reviews" / "train.jsonl").write_text("\n".join(lines))
    task = resolve_task("my_reviews", task_files=[file], data_dir=tmp_path)
    assert task.source.startswith("folder:") and task.labels == ("bad", "good")
    with pytest.raises(DownloadError, match="the columns that its templates name"):
        resolve_task("my_reviews", task_files=[file])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: my_reviews\n", "", "name is missing; expected at least name, doc_to_text"),
        ("doc_to_text", "doc_to_txt", r"doc_to_txt is not a field of a task; did you mean doc_to_text\?"),
        ("license", "zzz", "zzz is not a field of a task; there is: name, aliases"),
        ("{'1': bad, '5': good}", "[yes, no]", r"labels\.0: found true \(true or false\); expected text, in quotes"),
        ("{'1': bad, '5': good}", "{'1': 1, '5': 5}", r"labels\.0: found 1 \(a number\); expected text, in quotes"),
        ("[accuracy, macro_f1]", "accuracy", r"metrics: found accuracy \(text\); expected a list"),
        ("[accuracy, macro_f1]", "[accurracy]", "metrics: Unknown metric 'accurracy'; choose from accuracy"),
        ("license: CC0", "main_metric: f2", "main_metric: Unknown metric 'f2'"),
        ("license: CC0", "train_size: many", "train_size: found many .* expected a whole number"),
        ("license: CC0", "process_docs: wscc", "process_docs: found 'wscc'; expected one of wsc"),
        ("license: CC0", "template_source: mine", "template_source: found mine .*'paper', 't5' or 'spoton'"),
        ("{{ title }}: ", "{{ title }: ", "doc_to_text: The template .* is not valid Jinja"),
        ('"{{ stars }}"', '["{{ stars }}", "a"]', "doc_to_target: found 2 templates for 1 of doc_to_text"),
        ('"{{ stars }}"', "5", r"doc_to_target: found 5 \(a number\); expected text, in quotes"),
        ("{train: data", "{dev: data", r"data_files.*found dev.*'train', 'validation' or 'test'"),
        ("{train: data", "{test: data", "data_files: found test; expected at least train"),
        ("name: my_reviews", "name: a,b", "name: found 'a,b'; expected letters"),
        ("name: my_reviews", "name: superglue/wic", "name: 'superglue/wic' is the name of a task of the catalog"),
        (REVIEWS, "- a\n- b\n", r"holds a list of 2; expected a mapping"),
        (REVIEWS, "", "holds nothing; expected a mapping"),
        ("labels: {", "labels: {{", "is not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_field(old: str, new: str, message: str, file: Path) -> None:
    with pytest.raises(DataError, match=message) as found:
        resolve_task("my_reviews", task_files=[rewritten(file, old, new)])
    assert str(file) in str(found.value)


def test_files_that_cannot_be_used(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read the task file .*gone\.yaml"):
        resolve_task("my_reviews", task_files=[tmp_path / "gone.yaml"])
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"task file .*latin\.yaml is not UTF-8"):
        resolve_task("my_reviews", task_files=[tmp_path / "latin.yaml"])
    with pytest.raises(DataError, match=r"'my_reviews' is the name of a task of .*reviews\.yaml"):
        resolve_task("my_reviews", task_files=[file, file])
    with pytest.raises(DataError, match="give it with --task-file"):
        resolve_task(str(file))
    (file.parent / "data" / "reviews.csv").unlink()
    with pytest.raises(DataError, match=r"reviews\.csv is not there"):
        resolve_task("my_reviews", task_files=[file])


def test_codes_need_no_quotes_and_two_may_be_one_label(file: Path) -> None:
    assert read_definition(rewritten(file, "{'1': bad, '5': good}", "{1: bad, 2: bad, 5: good}")).words == {
        "1": "bad",
        "2": "bad",
        "5": "good",
    }
    assert resolve_task("my_reviews", task_files=[file]).labels == ("bad", "good")


def test_labels_outside_the_closed_set_are_told(file: Path) -> None:
    with pytest.raises(DataError, match=r"targets that are not among its labels .*'5'"):
        resolve_task("my_reviews", task_files=[rewritten(file, "'5': good", "'4': good")])
