"""Finds the files of a split in a folder: one file, or its numbered parts. Reads none of them."""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from spoton.errors import DataError
from spoton.tasks.files import SUFFIXES

_SHARD = re.compile(r"[-_.](\d+)[-_]of[-_](\d+).*", re.DOTALL)
_NUMBERED = re.compile(r"[-_.](\d+)")
_SHOWN = 5


def parts_of_split(folder: Path, names: Sequence[str]) -> list[Path]:
    """Returns the files of a split in the order of their names; none if the folder has no such file.

    Args:
        folder: The folder.
        names: Names of the split, such as `train` and `training`.

    Raises:
        DataError: A part is missing, or it is not clear which files the split is.
    """
    pattern = re.compile(rf"(?P<name>{'|'.join(names)})(?P<tail>[-_.]\d+.*)?")
    tails: dict[Path, str] = {}
    spellings: set[str] = set()
    for file in sorted(folder.iterdir()):
        name = file.name.lower().removesuffix(".gz")
        match = pattern.fullmatch(name.rpartition(".")[0])
        if match and name.endswith(SUFFIXES) and file.is_file():
            tails[file] = match["tail"] or ""
            spellings.add(match["name"])
    files = list(tails)
    whole = [file for file, tail in tails.items() if not tail]
    if len(files) > 1 and (whole or len(spellings) > 1):
        raise DataError(
            f"{folder} has {_listed(files)}, and it is not clear which is the {names[0]} split. Keep one of them "
            f"there, or give the path of one file. Parts of one split are called {_example(names[0])}."
        )
    _require_all_parts(folder, names[0], tails)
    return files


def _require_all_parts(folder: Path, split: str, tails: dict[Path, str]) -> None:
    """Refuses numbered files that are not all parts of one split.

    Raises:
        DataError: Names the files, and the numbers that are missing.
    """
    files = list(tails)
    shards = [match for tail in tails.values() if (match := _SHARD.fullmatch(tail))]
    numbered = [match for tail in tails.values() if (match := _NUMBERED.fullmatch(tail))]
    if shards:
        totals = {int(match[2]) for match in shards}
        numbers = [int(match[1]) for match in shards]
        first = 0 if 0 in numbers or max(totals) not in numbers else 1
        if len(shards) < len(files) or len(totals) > 1:
            raise _unclear(folder, split, files)
        _require_each(folder, split, files, numbers, range(first, first + max(totals)))
    elif len(files) > 1 and numbered:
        numbers = [int(match[1]) for match in numbered]
        if len(numbered) < len(files) or max(numbers) - min(numbers) + 1 != len(set(numbers)):
            raise _unclear(folder, split, files)
        _require_each(folder, split, files, numbers, range(min(numbers), max(numbers) + 1))


def _require_each(
    folder: Path, split: str, files: Sequence[Path], numbers: Sequence[int], wanted: range
) -> None:
    if len(set(numbers)) < len(numbers) or not all(number in wanted for number in numbers):
        raise _unclear(folder, split, files)
    count = wanted.stop - wanted.start
    if count > len(numbers):
        # A name may claim any total, so no more numbers than needed are gone through.
        missing = [str(n) for n in islice((n for n in wanted if n not in numbers), _SHOWN)]
        more = count - len(numbers) - len(missing)
        raise DataError(
            f"{folder} has {len(numbers)} of {count} parts of the {split} split; missing: {', '.join(missing)}"
            f"{f', and {more} more' if more else ''}, counted from {wanted.start} as in {files[0].name}. Fetch the "
            "missing parts, or give the path of one file."
        )


def _unclear(folder: Path, split: str, files: Sequence[Path]) -> DataError:
    return DataError(
        f"{folder} has {_listed(files)}, which are not the parts of one {split} split: parts are numbered without "
        f"gaps, each number once, such as {_example(split)}. Rename them, keep one of them there, or give the path of "
        "one file."
    )


def _listed(files: Sequence[Path]) -> str:
    shown = [file.name for file in files[:_SHOWN]]
    if len(files) > _SHOWN:
        return f"{', '.join(shown)} and {len(files) - _SHOWN} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def _example(split: str) -> str:
    return f"{split}-00000-of-00002.csv and {split}-00001-of-00002.csv"
