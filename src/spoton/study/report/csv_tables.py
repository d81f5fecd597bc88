"""The report's tables as CSV files: unrounded numbers, with deviations and counts in separate columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from spoton.study.report.parts import UNKNOWN, Section, Table, TableCell, Value


def tables_of(sections: Sequence[Section]) -> Iterator[Table]:
    """Yields every table of a report that has rows."""
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Table) and block.rows:
                yield block.filled


def as_csv(table: Table) -> str:
    """Returns a table as CSV, with a column for each number of a cell: `gain`, `gain_std`, `gain_n`. Unknown: empty."""
    parts = [_parts([row[i] for row in table.rows]) for i in range(len(table.columns))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        f"{column}_{part}" if part else column
        for column, names in zip(table.columns, parts, strict=True)
        for part in names
    )
    for row in table.rows:
        writer.writerow(_cell(cell, part) for cell, names in zip(row, parts, strict=True) for part in names)
    return text.getvalue()


def _parts(cells: Sequence[TableCell]) -> list[str]:
    """Returns the names of a column's known numbers; one unnamed part for words."""
    known = {
        part: any(isinstance(cell, Value) and cell.numbers.get(part) is not None for cell in cells)
        for cell in cells
        if isinstance(cell, Value)
        for part in cell.numbers
    }
    return [part for part, there in known.items() if there] or [""]


def _cell(cell: TableCell, part: str) -> str:
    if isinstance(cell, Value):
        number = cell.numbers.get(part)
        return "" if number is None else f"{number:.10g}"
    return "" if cell == UNKNOWN or part else cell
