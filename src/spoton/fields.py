"""What does not fit the fields of a recipe, a file or a request, in words.

pydantic finds it; this file tells it as all our messages do: where, what was found, and what was expected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from spoton.arguments import shown

_KIND = re.compile(r"[\[(]|^(constrained-)?(str|int|float|bool)$")
"""Matches the parts of a place that name one of several allowed kinds, such as `literal['auto']`, and no field."""
_KIND_OF_TYPE = re.compile("_(type|parsing|from_float)$")
"""Matches what ends the type of a problem that names a kind of value: `int_type`, `int_parsing`."""
_EXPECTED = {
    "string": "text", "list": "a list", "tuple": "a list", "set": "a list", "dict": "a mapping",
    "mapping": "a mapping", "model": "a mapping", "model_attributes": "a mapping",
    "bool": "true or false", "int": "a whole number", "float": "a number", "finite_number": "a finite number",
    "path": "a path",
}  # fmt: skip
_LIMITS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"), "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}  # fmt: skip
_NOT_EMPTY = {"string_too_short": "a text that is not empty", "too_short": "a list that is not empty"}


def sentence(found: Iterable[ErrorDetails], known: Iterable[str] = (), *, listed: bool = True) -> str:
    """Returns all that does not fit as one sentence, such as `steps: found 0; expected at least 1.`

    Args:
        found: What pydantic found. It lists a problem for each kind that a field may have; they are told as one.
        known: Names of fields, for the hint about one that there is not.
        listed: Whether the hint lists all names if none is near.
    """
    told = "; ".join(problems(found, known, listed=listed))
    return told if told.endswith("?") else f"{told}."


def problems(found: Iterable[ErrorDetails], known: Iterable[str] = (), *, listed: bool = True) -> list[str]:
    """Returns each thing that does not fit in words; arguments as of `sentence`."""
    names = list(known)
    fields: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for problem in found:
        fields.setdefault(_field(problem), []).append(problem)
    return [_told(_nearest(group), names, listed=listed) for group in fields.values()]


def place(problem: ErrorDetails) -> str:
    """Returns where a problem is, such as `targets.tasks.0`; empty if it is of no single field."""
    return ".".join(str(part) for part in problem["loc"] if not _is_kind(part))


def expected(problem: ErrorDetails) -> str:
    """Returns what would fit: `a list`, `'sum' or 'mean'`, `at least 1`."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return f"{words} {context[limit]:g}"
    if kind in _NOT_EMPTY and context["min_length"] == 1:
        return _NOT_EMPTY[kind]
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    known = _EXPECTED.get(_KIND_OF_TYPE.sub("", kind))
    return known or problem["msg"].removeprefix("Value error, ").removeprefix("expected ")


def unknown(name: str, known: Sequence[str], *, listed: bool = True) -> str:
    """Returns the hint for a name that is not among the known ones; empty if there is none."""
    near = difflib.get_close_matches(name, [one for one in known if one != name], n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there is: {', '.join(known)}" if known and listed else ""


def shown_value(value: Any) -> str:
    """Returns what was found: a text or number as it is, the size of everything else."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list | tuple):
        return f"{'a mapping' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return shown(value)


def _field(problem: ErrorDetails) -> tuple[int | str, ...]:
    """Returns the place of a field, without the kind that was tried and all that follows."""
    kinds = [number for number, part in enumerate(problem["loc"]) if _is_kind(part)]
    return problem["loc"][: kinds[0]] if kinds else problem["loc"]


def _is_kind(part: int | str) -> bool:
    return isinstance(part, str) and bool(_KIND.search(part))


def _nearest(group: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Returns the problems of the kind that fits best: deepest in the value, then of its value and not of its type."""
    depths = [len(place(one).split(".")) for one in group]
    deepest = [one for one, depth in zip(group, depths, strict=True) if depth == max(depths)]
    of_values = [
        one for one in deepest if not _KIND_OF_TYPE.search(one["type"]) and one["type"] != "literal_error"
    ]
    nearest = of_values or deepest
    return [one for one in nearest if place(one) == place(nearest[0])]


def _told(group: Sequence[ErrorDetails], known: Sequence[str], *, listed: bool) -> str:
    problem = group[0]
    where, kind = place(problem), problem["type"]
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{where}: there is no such field{unknown(str(problem['loc'][-1]), known, listed=listed)}"
    if kind == "missing":
        return f"{where} is missing"
    before = f"{where}: " if where else ""
    # A check of several fields has no place: its message names them, and what was found is all of them.
    if kind == "value_error" and (not where or not message.startswith("expected")):
        return f"{before}{message}"
    wanted = " or ".join(dict.fromkeys(expected(one) for one in group))
    if wanted == "a list" and isinstance(problem["input"], (str, int, float)):
        wanted += f", such as [{problem['input']}]"
    return f"{before}found {shown_value(problem['input'])}; expected {wanted}"
