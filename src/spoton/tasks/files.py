"""Reads a user's file, recognised by its bytes: CSV, TSV, JSON, JSON Lines, Parquet or Excel, also gzipped.

Reads raw rows, with `csv_rows` and `json_rows` for text; `cells`, `columns` and `tabular` interpret cells and columns.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from spoton.errors import DataError
from spoton.reading import read_bytes, reason
from spoton.tasks.csv_rows import aligned_rows, column_names, csv_table, require_header
from spoton.tasks.excel import OnNote, first_sheet, unheard
from spoton.tasks.json_rows import holds_json, json_document, json_rows

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xlsm")
"""Suffixes of data files; each may be followed by `.gz`."""
_EXCEL = (".xlsx", ".xlsm")
_PARQUET_ROWS = 10_000  # at once
BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),  # before UTF-16, whose mark is a prefix of this one
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
REFUSED = (
    (b"%PDF", "a PDF. Copy its table into a spreadsheet and save that as CSV"),
    (
        b"\xd0\xcf\x11\xe0",
        "an Excel or Word file that is old or has a password. Save it as .xlsx without one, or as CSV",
    ),
    (b"SQLite format 3", "an SQLite database. Export a table of it as CSV"),
    (b"BZh", "compressed by bzip2. Unpack it, or compress it by gzip"),
    (b"\xfd7zXZ", "compressed by xz. Unpack it, or compress it by gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd. Unpack it, or compress it by gzip"),
    (b"\x89PNG", "a picture. Give a file with a text and a label in each row"),
    (b"version https://git-lfs", "a Git LFS pointer and not the data. Fetch it with `git lfs pull`"),
    (b"<!doctype html", "a web page. Download the file itself"),
    (b"<html", "a web page. Download the file itself"),
    (b"PK", "a ZIP archive. Unpack it and give the file inside"),
)


def read_rows(
    path: Path, encoding: str | None = None, delimiter: str | None = None, *, on_note: OnNote = unheard
) -> list[dict[str, Any]]:
    """Returns all rows of a file as dictionaries; the cells of CSV and TSV files are strings.

    Args:
        path: The file.
        encoding: Encoding of a text file. None: by its byte order mark, else UTF-8.
        delimiter: Delimiter of a CSV file. None: by its first line, or the tab if its name ends in `.tsv`.
        on_note: Called with what a user should know, such as sheets that are not read.

    Raises:
        DataError: The file is missing, empty, of an unknown kind, or cannot be decoded or parsed.
    """
    require_file(path)
    data, suffix = file_content(path)
    if data.startswith(b"PAR1") or (suffix == ".parquet" and data):
        rows = _read_parquet(data, path)
    elif data.startswith(b"PK") and (suffix in _EXCEL or b"xl/workbook" in data):
        rows = _read_excel(data, path, on_note)
    else:
        rows = _read_table(data, suffix, path, encoding, delimiter)
    if not rows:
        raise DataError(f"{path} is empty: it has no rows. Give a file with examples.")
    return rows


def require_file(path: Path) -> None:
    """Checks that a path may be a data file.

    Raises:
        DataError: It is a folder, does not exist, or cannot be looked up, such as a name that is too long.
    """
    try:
        wrong = "a folder" if path.is_dir() else None if path.exists() else "not there"
    except OSError as error:
        raise DataError(f"Cannot read {path}: {reason(error)}.") from error
    if wrong:
        raise DataError(f"{path} is {wrong}. Give the path of a data file.")


def file_content(path: Path) -> tuple[bytes, str]:
    """Returns the bytes of a file, unpacked if gzipped, and the suffix of their format.

    Raises:
        DataError: The file cannot be read or unpacked.
    """
    name = path.name.lower()
    try:
        data = read_bytes(path)
        while data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be unpacked by gzip: {error}. Fetch or compress it anew.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {reason(error)}.") from error
    return data, PurePath(name.removesuffix(".gz")).suffix


def decoded(data: bytes, path: Path, encoding: str | None = None) -> str:
    """Returns the text of bytes.

    Args:
        data: The bytes.
        path: Path of the file, for messages.
        encoding: None: by the byte order mark, else UTF-8.

    Raises:
        DataError: They are not in that encoding, or the encoding does not exist.
    """
    marked = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    if marked is None and chosen.lower() in ("utf-16", "utf-32"):
        raise DataError(
            f"{path} is not {chosen}: it has no byte order mark. Give --encoding {chosen}-le, or another."
        )
    try:
        text = data.decode(chosen)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(10) + 1
        raise not_encoded(path, chosen, line, data[error.start], error.start) from error
    except (LookupError, UnicodeError):
        raise DataError(
            f"There is no encoding {chosen!r} of text files. Try --encoding latin-1, cp1252 or utf-16."
        ) from None
    if "\0" in text:
        raise holds_zeros(path, chosen)
    return text.removeprefix("\ufeff")


def not_encoded(path: Path, encoding: str, line: int, byte: int, position: int) -> DataError:
    """Returns the error for a byte that is invalid in an encoding."""
    return DataError(
        f"{path} is not {encoding}: line {line} has byte 0x{byte:02x} at position {position} of the file. "
        "Name its encoding, for example --encoding cp1252 or latin-1, or save it as UTF-8."
    )


def holds_zeros(path: Path, encoding: str) -> DataError:
    """Returns the error for a text with zero bytes."""
    return DataError(
        f"{path} is not {encoding} text: it holds zero bytes. Try --encoding utf-16-le, or save it as UTF-8."
    )


def text_lines(text: str) -> list[str]:
    r"""Returns the lines of a text, including blank ones. Lines end only at `\n` or `\r\n`."""
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _read_table(
    data: bytes, suffix: str, path: Path, encoding: str | None, delimiter: str | None
) -> list[dict[str, Any]]:
    start = data[:64].lstrip().lower()
    reason = next((why for mark, why in REFUSED if start.startswith(mark.lower())), None)
    if reason is not None:
        raise DataError(f"{path} is {reason}.")
    if suffix in _EXCEL and data:
        raise DataError(
            f"{path} cannot be read as an Excel workbook: it is not a ZIP archive, as those are. If it is text, "
            "name it .csv; else save it anew."
        )
    if suffix not in SUFFIXES and delimiter is None:
        raise DataError(
            f"{path} ends in {suffix or 'nothing'}; expected one of {', '.join(SUFFIXES)}. Convert it, or give "
            "the --delimiter of its cells."
        )
    text = decoded(data, path, encoding)
    if delimiter is None and (suffix in (".json", ".jsonl", ".ndjson") or holds_json(text)):
        return json_rows(text, path)
    return list(csv_table(io.StringIO(text, newline=""), path, delimiter)[1])


def _read_parquet(data: bytes, path: Path) -> list[dict[str, Any]]:
    import pyarrow

    return list(parquet_table(pyarrow.BufferReader(data), path)[1])


def parquet_table(source: Any, path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Returns the columns of a Parquet file, and a lazy iterator over its rows.

    Args:
        source: Source that pyarrow reads.
        path: Path of the file, for messages.

    Raises:
        DataError: It cannot be read, or a column occurs twice.
    """
    import pyarrow
    import pyarrow.parquet

    with _readable_parquet(path):
        file = pyarrow.parquet.ParquetFile(source)
        schema = file.schema_arrow
    require_header(schema.names, path)
    classes = _classes((schema.metadata or {}).get(b"huggingface", b""))

    def rows() -> Iterator[dict[str, Any]]:
        with _readable_parquet(path):
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in _as_written(batch).to_pylist():
                    for name, words in classes.items():
                        code = row.get(name)
                        if isinstance(code, int):  # -1 stands for a hidden label
                            row[name] = words[code] if 0 <= code < len(words) else None
                    yield row

    return list(schema.names), rows()


def _as_written(batch: Any) -> Any:
    """Returns a batch whose floats of 32 bits are what they were written as: 0.1, and not 0.10000000149011612."""
    import pyarrow

    for place, field in enumerate(batch.schema):
        if field.type == pyarrow.float32():
            shortest = batch.column(place).cast(pyarrow.string()).cast(pyarrow.float64())
            batch = batch.set_column(place, field.name, shortest)
    return batch


@contextmanager
def _readable_parquet(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {str(error).rstrip('.')}. Write it anew."
        ) from error


def _classes(metadata: bytes) -> dict[str, list[str]]:
    """Returns class names by column, as `datasets` writes them into Parquet files."""
    found = json_document(metadata.decode("utf-8", "replace"))
    features = found.get("info", {}).get("features", {}) if isinstance(found, dict) else {}
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _read_excel(data: bytes, path: Path, on_note: OnNote) -> list[dict[str, Any]]:
    """Returns the rows of the first sheet that has any below its header."""
    chosen = first_sheet(data, path, on_note)
    if not chosen:
        return []
    header = ["" if cell is None else str(cell).strip() for cell in chosen[0]]
    width = max(place for place, name in enumerate(header, start=1) if name)
    names = column_names(header[:width])
    require_header(names, path)
    return list(aligned_rows(names, [row[:width] for row in chosen[1:]], None))
