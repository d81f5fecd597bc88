"""`spoton predict`: answers for new texts."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.data_options import is_path
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Json, Library, ModelOptions, PromptSpec
from spoton.cli.output import emit, note, table
from spoton.cli.progress import live_progress
from spoton.cli.tables import joined, require_table, write_table
from spoton.errors import DataError
from spoton.events import silent
from spoton.locks import locked
from spoton.parsing import MalformedError, parse_json

if TYPE_CHECKING:
    from spoton.evaluation import Prediction

app = typer.Typer()


@command(
    app,
    'spoton predict reviews.safetensors "A joy from start to end."',
    "spoton predict reviews.safetensors --file new.csv --json",
    "spoton predict reviews.safetensors --file new.csv --out answers.csv",
    "cat lines.txt | spoton predict reviews.safetensors",
)
def predict(
    prompt: PromptSpec,
    model: ModelOptions,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts, JSON objects of the template's columns, or one file. Default, and -: --file, or one per "
            "line from stdin."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="CSV, TSV, JSON, Parquet or Excel file, or a .txt file with one text per line."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Text encoding of the file. Default: UTF-8.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Delimiter of a CSV file. Default: detected from its first line.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the answers to this CSV, TSV or JSONL file, next to the columns of their rows. A killed run "
            "resumes there."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer, without labels.")] = 32,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration", help="Use the calibration of label scores that the prompt has."
        ),
    ] = True,
    library: Library = None,
    json: Json = False,
) -> None:
    """Answer new texts with a tuned prompt: labels with probabilities, or generated text.

    Every row has one entry in the output, in order; the answer to an empty row is empty.
    """
    from spoton.evaluation import predict as answer
    from spoton.tasks import DataSpec

    delimiter = DataSpec.of(None, {"delimiter": delimiter}).delimiter
    if out is not None:
        require_table(out, overwrite=overwrite, inputs=(file, *filter(is_path, text or ())))
    rows = _given(text or (), file, encoding, delimiter)
    if not any(row.strip() if isinstance(row, str) else row for row in rows):
        raise DataError("There is no text to answer. Give texts as arguments, with --file, or on stdin.")
    found = find_prompt(prompt, library)
    frozen = model.load(found)
    kept = None if out is None else out.with_name(f"{out.name}.partial")
    with locked(out) if out is not None else nullcontext():
        with live_progress() as on_event:
            predictions = answer(
                frozen, found, rows, max_tokens=max_tokens, calibrate=calibration, kept=kept, on_message=note,
                on_event=silent if out is None and len(rows) < _MANY else on_event,
            )  # fmt: skip
        if out is not None and kept is not None:
            names = list(dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row))
            write_table(out, [_answered(row, one, names) for row, one in zip(rows, predictions, strict=True)])
            kept.unlink(missing_ok=True)
    document = {
        "prompt": prompt,
        "task": found.card.task,
        "model": frozen.name,
        "predictions": [asdict(one) for one in predictions],
        "out": None if out is None else str(out),
    }
    columns = ("row", "answer", "probability", "input")
    summary = f"{len(predictions)} answers are in {out}" if out is not None else None
    emit(document, summary or table(columns, map(_cells, predictions), numbers=("row",)), as_json=json)


# Progress is shown from this many rows on.
_MANY = 32
_STDIN = "-"
_NAME_OF_FILE = re.compile(r"\S+\.(csv|tsv|json|jsonl|ndjson|parquet|xlsx|xlsm|txt)(\.gz)?", re.IGNORECASE)


def _given(
    texts: Sequence[str], file: Path | None, encoding: str | None, delimiter: str | None
) -> list[str | Mapping[str, Any]]:
    """Returns the rows to answer. An argument that is the path of a file means the rows of the file, not the text."""
    if texts and file is not None:
        raise DataError(f"Texts and --file {file} are both given. Keep one of the two.")
    if list(texts) == [_STDIN]:
        texts = ()
    files = [one for one in texts if is_path(one)]
    if len(texts) > 1 and files:
        raise DataError(f"{files[0]} is a file. Give it alone, with --file; its rows are then answered.")
    if files:
        if Path(files[0]).is_file():
            note(f"{files[0]} is a file; its rows are answered.")
        return _rows(Path(files[0]), encoding, delimiter)
    if len(texts) == 1 and _NAME_OF_FILE.fullmatch(texts[0]):
        note(f"There is no file {texts[0]}, so that name itself is answered as a text.")
    return [_row(one) for one in texts] if texts else _rows(file, encoding, delimiter)


def _rows(file: Path | None, encoding: str | None, delimiter: str | None) -> list[str | Mapping[str, Any]]:
    from spoton.tasks.files import decoded, file_content, read_rows, text_lines

    if file is None or str(file) == _STDIN:
        if sys.stdin.isatty():
            note("Reading texts from stdin, one per line; end with Ctrl-D.")
        # Reads bytes, since Python would also end lines at a lone carriage return.
        return [_row(line) for line in text_lines(decoded(sys.stdin.buffer.read(), Path("stdin"), encoding))]
    if file.suffix.lower() in ("", ".txt") and delimiter is None and file.is_file():
        return [_row(line) for line in text_lines(decoded(file_content(file)[0], file, encoding))]
    return list(read_rows(file, encoding, delimiter, on_note=note))


def _row(text: str) -> str | Mapping[str, Any]:
    """Returns a JSON object as columns, and anything else as text."""
    if not text.lstrip().startswith("{"):
        return text.strip()
    try:
        columns: dict[str, Any] = parse_json(text)
    except MalformedError:
        return text.strip()
    return columns


def _answered(row: str | Mapping[str, Any], one: Prediction, names: Sequence[str]) -> dict[str, Any]:
    """Returns a row of the table of answers: number, the row's columns, answer, and the probability of each label."""
    original = {"text": row} if isinstance(row, str) else row
    chances = (
        {} if one.probabilities is None else {f"p({label})": p for label, p in one.probabilities.items()}
    )
    number = joined({}, {"row": one.row}, names or ["text"])
    answers = {"answer": one.answer, "probability": _probability(one), **chances}
    return number | joined(original, answers, names)


def _probability(one: Prediction) -> float | None:
    """Returns the probability of the answer."""
    return None if one.probabilities is None or one.answer is None else one.probabilities[one.answer]


def _cells(one: Prediction) -> tuple[object, ...]:
    return one.row, one.answer, _probability(one), " ".join(one.input.split())
