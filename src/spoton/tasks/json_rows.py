"""Rows of JSON text: one document that holds them, or one document per line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spoton.errors import DataError
from spoton.fields import shown_value
from spoton.parsing import MalformedError, parse_json
from spoton.tasks.cells import CONVERSATIONAL

_ENVELOPES = ("data", "rows", "examples", "records", "items", "instances", "results")
"""Usual names of the list of rows in a JSON object."""


def json_rows(text: str, path: Path) -> list[dict[str, Any]]:
    """Returns the rows of one JSON document if the text is one that holds rows, else of one document per line.

    Args:
        text: The whole file.
        path: Path of the file, for messages.

    Raises:
        DataError: The text is neither.
    """
    content = text.strip()
    first, _, more = content.partition("\n")
    if content.startswith("[") or (content.startswith("{") and not is_json(first)):
        whole = _whole(content, path)
        if isinstance(whole, dict):
            lists = [value for value in whole.values() if isinstance(value, list)]
            whole = lists[0] if len(lists) == 1 else whole
        if isinstance(whole, list) and all(isinstance(row, dict) for row in whole):
            return whole
        if isinstance(whole, dict):
            raise _not_one_list(whole, path)
    elif content.startswith("{") and not more:
        whole = json_document(first)
        rows = enclosed_rows(whole)
        if rows is not None:
            return rows
        if _is_table(whole):
            raise _not_one_list(whole, path)
    return list(json_lines(text.split("\n"), path))


def _whole(content: str, path: Path) -> Any:
    """Returns the value of a text that may be one JSON document; None if its lines may be documents instead.

    Raises:
        DataError: It begins as a list over several lines, and is no document.
    """
    try:
        return parse_json(content)
    except MalformedError as error:
        if content.startswith("[") and not is_json(content.partition("\n")[0]):
            raise DataError(
                f"{path} begins as a JSON list of rows, but {error}. If the file was cut short, write it again; one "
                "object a line works as well."
            ) from error
        return None


def enclosed_rows(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the rows in an object such as `{"data": [...]}`; None if the object is itself a row.

    A row may also have a list of objects, such as a conversation. So the list must be all that the object has, or have
    a usual name.
    """
    lists = [name for name, value in row.items() if _are_objects(value) and name not in CONVERSATIONAL]
    if len(lists) == 1 and (len(row) == 1 or lists[0].lower() in _ENVELOPES):
        rows: list[dict[str, Any]] = row[lists[0]]
        return rows
    return None


def _is_table(whole: Mapping[str, Any]) -> bool:
    """Returns whether an object holds lists of rows, or a table by column or by index, as pandas writes one."""
    if len(whole) < 2 or CONVERSATIONAL & set(whole):
        return False
    lists = [value for value in whole.values() if isinstance(value, list)]
    if len(lists) == len(whole) and (all(map(_are_objects, lists)) or _are_columns(lists)):
        return True
    objects = [value for value in whole.values() if isinstance(value, dict)]
    by_column = all(value and all(map(str.isdecimal, value)) for value in objects)
    return len(objects) == len(whole) and (by_column or all(map(str.isdecimal, whole)))


def _are_columns(lists: Sequence[list[Any]]) -> bool:
    return len(lists[0]) > 1 and len(set(map(len, lists))) == 1 and not any(map(_are_objects, lists))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _not_one_list(whole: Mapping[str, Any], path: Path) -> DataError:
    return DataError(
        f"{path} is one JSON object with {', '.join(map(repr, list(whole)[:5]))}; expected a list of "
        "objects, one a row, or one object a line. pandas writes these with `orient='records'`."
    )


def holds_json(text: str) -> bool:
    """Returns whether a text that need not be JSON is a JSON document, or its first line is: a list or an object."""
    content = text.strip()
    return content.startswith(("{", "[")) and (is_json(content.partition("\n")[0]) or is_json(content))


def is_json(line: str) -> bool:
    """Returns whether a line is a JSON document."""
    return json_document(line) is not None


def json_document(text: str) -> Any:
    """Returns the JSON value of a text; None if it is not JSON."""
    try:
        return parse_json(text)
    except MalformedError:
        return None


def json_lines(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file with one JSON object per line.

    Raises:
        DataError: A line is something else.
    """
    for line, content in enumerate(lines, start=1):
        if not content.strip():
            continue
        try:
            row = parse_json(content.removesuffix("\n"))
        except MalformedError as error:
            raise DataError(
                f"{path}, line {line} is not JSON: {error}. Expected one object a line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {line} holds {shown_value(row)}; expected an object with columns.")
        yield row
