"""Makes inputs from new texts with a prompt's template, as when the prompt was tuned. No models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spoton.errors import DataError
from spoton.tasks.cells import plain_rows, require_text
from spoton.tasks.template import compile_template, reads_row, render, single_path, template_columns

# Columns that catalog templates see in addition to a row's own (`spoton.tasks.catalog.TaskInfo.doc_to_text`). They are
# the same for every row, so that an answer does not depend on the position of its row.
_CATALOG_COLUMNS = {"number": 0, "file": ""}


def given_columns(source: str) -> dict[str, Any]:
    """Returns the columns that a row need not have, with their values.

    Args:
        source: Source field of the prompt's card; that of a mixture names the sources of its members.
    """
    return dict(_CATALOG_COLUMNS) if source.startswith("bundled:") or "(bundled:" in source else {}


def fill(
    template: str, rows: Sequence[str | Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> list[str]:
    """Returns inputs as `inputs_of` does, and refuses empty rows.

    Raises:
        DataError: A row is empty, or does not fit the template.
    """
    inputs = inputs_of(template, rows, given)
    if None in inputs:
        raise DataError(f"Text {inputs.index(None) + 1} is empty. Remove it, or give a text.")
    return [text for text in inputs if text is not None]


def inputs_of(
    template: str, rows: Sequence[str | Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> list[str | None]:
    """Returns inputs from rows by a card's template; None for an empty row. Without a template, a text is the input.

    Args:
        template: Template of the card.
        rows: Texts or columns.
        given: Columns that a row need not have, with their values.

    Raises:
        DataError: A row is neither a text nor a mapping, or does not fit the template, or the template reads no column;
            or one row was given in place of a list.
    """
    if isinstance(rows, str | Mapping):
        what = "one text" if isinstance(rows, str) else "one mapping of columns"
        raise DataError(f"Found {what}; expected a list of rows. Put it into a list.")
    if hasattr(rows, "columns"):  # of pandas or polars; as a sequence, it is its columns
        raise DataError(
            "Found a data frame; expected a list of rows. Give one of its columns, or frame.to_dict('records')."
        )
    if template and not reads_row(template):  # older cards of mixtures say `mixture of ...`
        raise DataError(
            f"The prompt's template is {template[:200]!r}, which reads no column: every text would "
            "become the same input. Tune the prompt again: a mixture of tasks is now read as its members are."
        )
    given = given or {}
    columns = [name for name in template_columns(template) if name not in given] if template else []
    compiled = compile_template(template) if template else None
    path = (single_path(template) if template else None) or tuple(columns) or ("text",)
    inputs: list[str | None] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, str | Mapping):
            raise DataError(
                f"Row {number} is {row!r:.60}; expected a text, or a mapping of columns. Give an empty text for a row "
                "without one."
            )
        if isinstance(row, str):
            if len(columns) > 1:
                raise DataError(
                    f"Text {number} is one text, but this prompt was tuned on several columns: {', '.join(columns)}. "
                    'Give JSON objects, such as {"' + columns[0] + '": "...", ...}.'
                )
            row = _nested(row, path)
        (plain,) = plain_rows([row])  # as when it was tuned
        cells = {name: "" if value is None else value for name, value in plain.items()}
        # A row is empty if all columns that are read are empty; the template refuses a row that lacks them.
        read = [cells[name] for name in columns if name in cells] or list(cells.values())
        if not any(str(value).strip() for value in read):
            inputs.append(None)
            continue
        try:
            if compiled is None:
                require_text(cells.get("text", ""), "text")
            inputs.append(
                render(compiled, {**given, **cells}) if compiled else str(cells.get("text", "")).strip()
            )
        except DataError as error:
            raise DataError(f"Row {number}: {error}") from error
    return inputs


def _nested(text: str, path: Sequence[str]) -> dict[str, Any]:
    """Returns a row that holds a text at a path of keys."""
    value: Any = text
    for key in reversed(path):
        value = {key: value}
    return dict(value)
