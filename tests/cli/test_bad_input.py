"""Bad input of every kind: exit code 2, one message that names what is wrong, and not a byte left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spoton.prompts import PromptLibrary
from tests.cli.conftest import Ran, Run, a_prompt
from tests.tiny import WIDTH

RECIPE = ("--length", "4", "--steps", "6", "--key-step", "2", "--evaluate-every", "3", "--batch-size", "4")
READERS = ("adapt", "tune", "doctor", "retrieve", "evaluate", "tasks show")

Refused = Callable[..., str]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Refused:
    """Runs a command that has to be refused, and returns its message."""

    def invoke(*args: object, kind: str, stdin: object = None) -> str:
        before = files(tmp_path)
        ran: Ran = run(*args, "--json", stdin=stdin)
        assert ran.code == 2
        assert ran.document.keys() == {"error", "kind", "code"} and ran.document["kind"] == kind
        assert ran.stderr.count("Error:") == 1 and "Traceback" not in ran.stderr
        assert files(tmp_path) == before
        assert not list(tmp_path.rglob("*.work"))
        message: str = ran.document["error"]
        return message

    return invoke


@pytest.fixture
def command(tiny_model: Path, prompts: PromptLibrary, tmp_path: Path) -> Callable[[str, Path], list[object]]:
    """A whole command line by its verb, on some data."""

    def line(verb: str, data: Path) -> list[object]:
        model, library = ("--model", tiny_model), ("--library", prompts.folder)
        out = ("--out", tmp_path / "out" / "p.safetensors")
        options: dict[str, tuple[object, ...]] = {
            "adapt": (*model, *library, *out, *RECIPE),
            "tune": (*model, *out, *RECIPE),
            "doctor": (*model, *RECIPE),
            "retrieve": (*model, *library, *RECIPE),
            "evaluate": library,
            "tasks show": (),
        }
        return [*verb.split(), *(["news"] if verb == "evaluate" else []), data, *options[verb]]

    return line


Command = Callable[[str, Path], list[object]]


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"text,label\n", "is empty"),
        (b"text,label\n" + b"The film was warm.,good\n" * 20, "one class only, 'good'"),
        (b"text,label\nfine,good\ncaf\xe9,bad\n", "line 3 has byte 0xe9"),
        ("text,label\nfine,good\n".encode("utf-16-le"), "holds zero bytes"),
    ],
    ids=["empty", "only a header", "one class", "latin-1", "utf-16"],
)
def test_a_file_that_is_no_task(
    verb: str, content: bytes, words: str, refused: Refused, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_bytes(content)
    assert words in refused(*command(verb, tmp_path / "data.csv"), kind="DataError")


@pytest.mark.parametrize("verb", [verb for verb in READERS if verb != "tasks show"])
def test_a_label_longer_than_the_context(
    verb: str, refused: Refused, command: Command, reviews: Path, tmp_path: Path
) -> None:
    data = tmp_path / "long.csv"
    data.write_text(reviews.read_text().replace(",good\n", "," + "good" * 200 + "\n"))
    message = refused(*command(verb, data), kind="DataError")
    assert "longest target" in message and "128 positions" in message and "Shorten the labels" in message


@pytest.mark.parametrize("verb", ["adapt", "tune", "doctor", "evaluate"])
@pytest.mark.parametrize("column", ["text", "label"])
def test_half_of_a_character(
    verb: str, column: str, refused: Refused, command: Command, reviews: Path, tmp_path: Path
) -> None:
    """JSON can hold one; it is what a cut emoji leaves."""
    rows = [line.split(",") for line in reviews.read_text().splitlines()[1:]]
    data = tmp_path / "cut.jsonl"
    documents = [{"text": text, "label": label} for text, label in rows]
    data.write_text("".join(json.dumps(one | {column: one[column] + "\ud83d"}) + "\n" for one in documents))
    assert "U+D83D" in refused(*command(verb, data), kind="DataError")


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (("--length", "200"), "DataError", "200 prompt tokens"),
        (("--init", "nowhere.safetensors"), "RecipeError", "nowhere.safetensors"),
    ],
)
def test_adapt_finds_out_a_bad_recipe_before_it_scores_anything(
    flags: tuple[str, str], kind: str, words: str, run: Run, command: Command, reviews: Path, tmp_path: Path
) -> None:
    ran = run(*command("adapt", reviews), *flags, "--json")
    assert (ran.code, ran.document["kind"]) == (2, kind) and words in ran.document["error"]
    assert "zero-shot" not in ran.stderr
    assert not list((tmp_path / "out").iterdir())


# A row of 100,000 characters is no mistake: it is cut, counted and said.


@pytest.fixture
def with_a_long_row(reviews: Path, tmp_path: Path) -> Path:
    data = tmp_path / "long.csv"
    data.write_text(reviews.read_text() + "The film was lovely. " * 5000 + ",good\n")
    return data


@pytest.mark.parametrize("verb", ["adapt", "tune"])
def test_a_very_long_row_is_cut_counted_and_said(
    verb: str, run: Run, command: Command, with_a_long_row: Path, reviews: Path
) -> None:
    line = [*command(verb, with_a_long_row), "--validation", reviews, "--test", reviews]
    assert run(*line, "--json").document["truncated"] == 1
    (said,) = [
        row
        for row in run(*line, *(["--overwrite"] if verb in ("adapt", "tune") else [])).stdout.splitlines()
        if row.startswith("truncated")
    ]
    assert said.split() == ["truncated", "1"]


def test_the_doctor_points_to_a_very_long_row(
    run: Run, command: Command, with_a_long_row: Path, reviews: Path
) -> None:
    line = [*command("doctor", with_a_long_row), "--validation", reviews, "--test", reviews]
    document = run(*line, "--json").document
    assert document["truncated"] == 1 and document["input_tokens"]["longest"] > 10_000
    assert any(finding.startswith("1 of 81 training inputs") for finding in document["findings"])


def test_evaluate_counts_a_very_long_row(
    run: Run, command: Command, with_a_long_row: Path, reviews: Path
) -> None:
    document = run(*command("evaluate", reviews), "--test", with_a_long_row, "--json").document
    assert (document["truncated"], document["examples"]) == (1, 81)


def test_predict_says_that_a_text_was_cut(run: Run, labelled: Path, tiny_model: Path) -> None:
    texts = ["The film was lovely. " * 5000, "The film was dull."]
    ran = run("predict", labelled, "--model", tiny_model, "--json", *texts)
    assert ran.code == 0 and len(ran.document["predictions"]) == 2
    assert "1 of 2 inputs are longer than" in ran.stderr


# Texts to predict.


@pytest.fixture
def labelled(prompts: PromptLibrary, tmp_path: Path) -> Path:
    """A prompt of the tiny model with labels and a template."""
    card = prompts.get("news").card
    facts = {"model": card.model, "model_fingerprint": card.model_fingerprint}
    labelled = a_prompt("mine", width=WIDTH, labels=["good", "bad"], template="{{ text }}\nVerdict:", **facts)
    return labelled.save(tmp_path / "labelled.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("new.csv", b"", "is empty"),
        ("new.csv", b"text\ncaf\xe9\n", "is not utf-8"),
        ("new.txt", b"", "no text to answer"),
        ("new.txt", b"caf\xe9\n", "--encoding"),
        ("new.jsonl", b'{"words": "fine"}\n', "'text' is undefined"),
        ("new.jsonl", b'{"text": "\\ud83d"}\n', "U+D83D"),
    ],
)
def test_a_file_of_texts_that_cannot_be_answered(
    name: str, content: bytes, words: str, refused: Refused, labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refused("predict", labelled, "--file", tmp_path / name, kind="DataError")


def test_an_encoding_that_does_not_fit(refused: Refused, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_bytes(b"Four bytes..")
    file = ("--file", tmp_path / "new.txt")
    for encoding in ("utf-16", "utf-9"):
        assert "--encoding" in refused("predict", labelled, *file, "--encoding", encoding, kind="DataError")


def test_stdin_in_another_encoding(refused: Refused, labelled: Path) -> None:
    assert "stdin is not utf-8" in refused("predict", labelled, kind="DataError", stdin=b"caf\xe9\n")


def test_json_nested_out_of_all_bounds_is_a_text(run: Run, labelled: Path) -> None:
    assert run("predict", labelled, '{"a":' * 100_000).code == 0


# Prompts.


@pytest.mark.parametrize("verb", ["predict", "tune"])
def test_a_prompt_of_another_model(
    verb: str, refused: Refused, command: Command, reviews: Path, tiny_model: Path, tmp_path: Path
) -> None:
    foreign = a_prompt("foreign", width=WIDTH).save(tmp_path / "foreign.safetensors")
    line: dict[str, list[object]] = {
        "predict": ["predict", foreign, "--model", tiny_model, "A text."],
        "tune": [*command("tune", reviews), "--init", foreign],
    }
    message = refused(*line[verb], kind="PromptError")
    assert "'foreign'" in message and "f00d" in message and "tiny-llama" in message


def test_a_prompt_whose_model_is_not_here(refused: Refused, tmp_path: Path) -> None:
    moved = a_prompt("moved", width=WIDTH, model="folder/of-the-model").save(tmp_path / "moved.safetensors")
    message = refused("predict", moved, "A text.", kind="ModelError")
    assert "'moved' was tuned with 'folder/of-the-model'" in message and "--model" in message


def cut(content: bytes) -> bytes:
    return content[:-20]


def bit_flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def emptied(content: bytes) -> bytes:
    return b""


def a_text(content: bytes) -> bytes:
    return b"Not a prompt at all, but long enough to be one."


DAMAGES = (cut, bit_flipped, emptied, a_text)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "verb", ["predict", "evaluate", "retrieve", "similarity", "tune", "library show", "library add"]
)
def test_a_damaged_prompt(
    verb: str, damage: Callable[[bytes], bytes], refused: Refused, command: Command, reviews: Path,
    prompts: PromptLibrary, tmp_path: Path,
) -> None:  # fmt: skip
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(damage((prompts.folder / "news.safetensors").read_bytes()))
    line: dict[str, list[object]] = {
        "predict": ["predict", damaged, "A text."],
        "evaluate": ["evaluate", damaged, reviews],
        "retrieve": ["retrieve", damaged, "--library", prompts.folder],
        "similarity": ["similarity", damaged, damaged],
        "tune": [*command("tune", reviews), "--init", damaged],
        "library show": ["library", "show", damaged],
        "library add": ["library", "add", damaged],
    }
    message = refused(*line[verb], kind="PromptError")
    assert str(damaged) in message and "is damaged or not a prompt file" in message


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_prompt_of_a_library_is_called_damaged(
    damage: Callable[[bytes], bytes], refused: Refused, prompts: PromptLibrary
) -> None:
    file = prompts.folder / "news.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    library = ("--library", prompts.folder)
    assert "is damaged" in refused("predict", "news", *library, "A text.", kind="PromptError")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["adapt", "retrieve"])
def test_a_damaged_source_is_named_and_skipped(
    verb: str, damage: Callable[[bytes], bytes], run: Run, command: Command, reviews: Path,
    prompts: PromptLibrary,
) -> None:  # fmt: skip
    file = prompts.folder / "news.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    ran = run(*command(verb, reviews), "-k", 2, "--json")
    assert ran.code == 0
    assert [source["name"] for source in ran.document["retrieved"]] == ["quiz"]
    assert "Skipped news" in ran.stderr


# Places.


def test_a_library_that_cannot_be_written(refused: Refused, prompts: PromptLibrary, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    prompt = prompts.folder / "news.safetensors"
    inside, itself = tmp_path / "file" / "library", tmp_path / "file"
    assert str(inside) in refused("library", "add", prompt, "--library", inside, kind="SpotonError")
    assert "is a file" in refused("library", "add", prompt, "--library", itself, kind="LibraryError")
    assert str(inside) in refused("library", "remove", "news", "--library", inside, kind="LibraryError")


def test_an_own_library_that_is_a_file(
    refused: Refused, prompts: PromptLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPOTON_LIBRARY", str(tmp_path / "file"))
    assert "is a file" in refused("library", "add", prompts.folder / "news.safetensors", kind="LibraryError")


@pytest.mark.parametrize("verb", ["adapt", "tune"])
@pytest.mark.parametrize(
    "place", ["file/p.safetensors", "folder.safetensors", "folder", "reviews.csv", "p.json"]
)
def test_a_place_where_no_prompt_can_go(
    verb: str, place: str, refused: Refused, command: Command, reviews: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    message = refused(*command(verb, reviews), "--out", tmp_path / place, kind="SpotonError")
    assert str(tmp_path / place) in message


@pytest.mark.parametrize(
    ("verb", "kind"), [("predict", "LibraryError"), ("library show", "LibraryError"), ("adapt", "DataError")]
)
def test_a_text_too_long_for_a_path_is_an_unknown_name(
    refused: Refused, prompts: PromptLibrary, tmp_path: Path, verb: str, kind: str
) -> None:
    text = "A joy from start to end. " * 20
    more = {"predict": ("Fine.",), "adapt": ("--out", tmp_path / "p.safetensors")}.get(verb, ())
    message = refused(*verb.split(), text, *more, "--library", prompts.folder, kind=kind)
    assert "A joy" in message and text not in message and "permissions" not in message
