"""Turns cells of any file into plain text: defines which are empty, which are read, and which are refused by name.

A cell of JSON, Parquet or Excel may be a number, a list, an object, bytes or a conversation. A model should never read
Python's own form of these ("['a', 'b']", "b'text'", "nan").
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from spoton.errors import DataError

Row = Mapping[str, Any]

_CONVERSATIONS = ("messages", "conversations")
CONVERSATIONAL = frozenset({*_CONVERSATIONS, "prompt", "completion"})
"""Columns that may hold conversations, and then replace others."""
_ANSWERS = ("assistant", "gpt", "model")


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns rows with empty cells as None, bytes as text, and conversations as a `prompt` and a `completion`.

    A conversation is a list of messages with `role` and `content` (or `from` and `value`) under `messages`, `prompt`
    or `completion`. The last message, if it is the assistant's, is the completion. A single message becomes its text;
    several become lines such as "user: ...".

    Raises:
        DataError: A message, such as a picture, has no text.
    """
    return [plain_row(row) for row in rows]


def lookup(row: Row, column: str) -> Any:
    """Returns the cell of a column, or of `column.key` in a nested one; None if it is missing."""
    if column in row:
        return row[column]
    found: Any = row
    for key in column.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def target_text(cell: Any, column: str) -> str:
    """Returns a cell as a stripped target: booleans as in JSON, 1.0 as 1, a decimal 1.50 as 1.5, a list of one item as
    that item.

    Raises:
        DataError: The cell is a list of several, an object, or bytes that are not text.
    """
    if isinstance(cell, list | tuple):
        if len(cell) > 1:
            raise DataError(
                f"Column {column!r} has several targets in one row, such as {_shown(cell)}. Multi-label tasks are not "
                "supported: make one task of each label, with the targets yes and no, or keep one label a row."
            )
        cell = cell[0] if cell else None
    _refuse(cell, column, "target")
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, Decimal) and cell.is_finite():
        return f"{cell.normalize():f}"
    return str(cell).strip()


def require_text(cell: Any, column: str) -> None:
    """Refuses a cell that cannot be an input on its own.

    Raises:
        DataError: It is a list, an object, or bytes that are not text.
    """
    if isinstance(cell, list | tuple):
        raise DataError(
            f"Column {column!r} holds lists, such as {_shown(cell)}. Say how they are read, for example "
            f"--template \"{{{{ row['{column}'] | join(', ') }}}}\"."
        )
    _refuse(cell, column, "input")


def _refuse(cell: Any, column: str, role: str) -> None:
    if isinstance(cell, Mapping):
        keys = [str(key) for key in cell]
        example = f"{column}.{keys[0]}" if keys else column
        raise DataError(
            f"Column {column!r} holds objects with {', '.join(map(repr, keys)) or 'nothing'}. Name one of these with "
            f"--{role} {example}{' or use a --template' if role == 'input' else ''}."
        )
    if isinstance(cell, bytes | bytearray):
        raise DataError(
            f"Column {column!r} holds bytes that are not text in UTF-8, such as a picture. Choose another column."
        )


def plain_row(row: Row) -> dict[str, Any]:
    """Returns one row as in `plain_rows`."""
    cells = {str(name): _plain(cell) for name, cell in row.items()}
    for column in _CONVERSATIONS:
        if column in cells and _is_conversation(cells[column]):
            *before, last = cells.pop(column)
            asked = before if _role(last) in _ANSWERS else [*before, last]
            cells.setdefault("prompt", asked)
            cells.setdefault("completion", [last] if asked is before else None)
    for column in ("prompt", "completion"):
        if column in cells and _is_conversation(cells[column]):
            cells[column] = _conversation(cells[column])
    return cells


def _plain(cell: Any) -> Any:
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if isinstance(cell, bytes | bytearray):
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError:  # refused where it is used
            return cell
    return cell


def _is_conversation(cell: Any) -> bool:
    return (
        isinstance(cell, list)
        and bool(cell)
        and all(isinstance(message, Mapping) and _role(message) is not None for message in cell)
    )


def _role(message: Mapping[str, Any]) -> str | None:
    role = message.get("role", message.get("from"))
    return role if isinstance(role, str) else None


def _conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    texts = [(_role(message), _content(message)) for message in messages]
    return texts[0][1] if len(texts) == 1 else "\n".join(f"{role}: {text}" for role, text in texts)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content", message.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content).strip()
    if content is None:
        return ""
    if not isinstance(content, str):
        raise DataError(
            f"A message of the {_role(message)} holds {_shown(content)}; expected text. Leave such rows out."
        )
    return content.strip()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
