"""`spoton predict`: answers for new texts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoton.cli.command import command
from spoton.cli.libraries import find_prompt
from spoton.cli.options import Json, Library, ModelOptions, PromptSpec
from spoton.cli.output import emit, note, quiet_stdout, table
from spoton.errors import DataError
from spoton.parsing import MalformedError, parse_json
from spoton.reading import read_text, reason

if TYPE_CHECKING:
    from spoton.evaluation import Prediction

app = typer.Typer()


@command(
    app,
    'spoton predict reviews.safetensors "A joy from start to end."',
    "spoton predict reviews.safetensors --file new.csv --json",
    "cat lines.txt | spoton predict reviews.safetensors",
)
def predict(
    prompt: PromptSpec,
    model: ModelOptions,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts, or JSON objects of the template's columns. Not given: --file, or one a line from stdin."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet file, or one text a line.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Text encoding of the file.")] = "utf-8",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer, without labels.")] = 32,
    library: Library = None,
    json: Json = False,
) -> None:
    """Answer new texts with a tuned prompt: labels with probabilities, or generated text."""
    from spoton.evaluation import predict as answer

    rows = [_row(one) for one in text] if text else _rows(file, encoding)
    if not rows:
        raise DataError("There is no text to answer. Give texts as arguments, with --file, or on stdin.")
    found = find_prompt(prompt, library)
    frozen = model.load(found)
    with quiet_stdout():
        predictions = answer(frozen, found, rows, max_tokens=max_tokens, on_message=note)
    document = {
        "prompt": prompt,
        "task": found.card.task,
        "model": frozen.name,
        "predictions": [asdict(one) for one in predictions],
    }
    emit(document, table(("answer", "probability", "input"), map(_cells, predictions)), as_json=json)


def _rows(file: Path | None, encoding: str) -> list[str | Mapping[str, Any]]:
    from spoton.tasks.files import read_rows

    if file is None:
        if sys.stdin.isatty():
            note("Reading texts from stdin, one a line; end with Ctrl-D.")
        try:
            return _lines(sys.stdin)
        except UnicodeDecodeError as error:
            raise DataError(
                f"stdin is not {error.encoding}: {error}. Convert it, or give a --file."
            ) from error
    if file.suffix in ("", ".txt"):
        try:
            return _lines(read_text(file, encoding=encoding).splitlines())
        except (OSError, UnicodeError, LookupError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            raise DataError(f"{file} cannot be read: {why}. Check the path and --encoding.") from error
    return list(read_rows(file, encoding))


def _lines(lines: Iterable[str]) -> list[str | Mapping[str, Any]]:
    return [_row(line) for line in lines if line.strip()]


def _row(text: str) -> str | Mapping[str, Any]:
    """A JSON object as columns; anything else is the text itself."""
    if not text.lstrip().startswith("{"):
        return text.strip()
    try:
        columns: dict[str, Any] = parse_json(text)
    except MalformedError:
        return text.strip()
    return columns


def _cells(one: Prediction) -> tuple[object, ...]:
    probability = None if one.probabilities is None else one.probabilities[one.answer]
    return one.answer, probability, " ".join(one.input.split())
