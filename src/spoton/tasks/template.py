"""Jinja templates over one row of data: a template can only format a row, in bounded time and space."""

import html
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError

from spoton.errors import DataError
from spoton.tasks.template_limits import LimitedEnvironment, budget_of

_RESERVED = frozenset("and or not in is if else true false none True False None row loop self".split())


def _plain(text: object) -> str:
    """Applies the filter `plain`: HTML entities become characters, runs of white space one space."""
    return " ".join(html.unescape(str(text)).split())


def _fifths(score: object) -> str:
    """Applies the filter `fifths`: rounds a score to the nearest fifth, as T5 does for STS-B ("3.8")."""
    return f"{round(float(str(score)) * 5) / 5:.1f}"


def _sentence(text: object) -> str:
    """Applies the filter `sentence`: as `plain`, with a full stop added where no mark ends the text."""
    said = _plain(text)
    return said if said.endswith((".", "!", "?")) else f"{said}."


_environment = LimitedEnvironment()
_environment.add_filter("plain", _plain)
_environment.add_filter("fifths", _fifths)
_environment.add_filter("sentence", _sentence)

CUE = "Answer:"
"""Text that the default template puts after a column, on a separate line."""
_MOST_NAMED = 50  # columns, in an error
_KEPT = 64  # templates whose properties are known, since a server fills the same ones again and again


def compile_template(source: str) -> Template:
    """Compiles a template.

    Raises:
        DataError: It is not valid Jinja, or uses parts of Jinja that are not allowed.
    """
    try:
        return _environment.from_string(_environment.limited(source))
    except SecurityError as error:
        raise DataError(f"The template {_shortened(source)} is refused: {error}. Simplify it.") from error
    except TemplateError as error:
        raise DataError(
            f"The template {_shortened(source)} is not valid Jinja: {_clause(error)}. "
            "Columns are written {{ column }}, or {{ row['a column'] }} if the name has spaces."
        ) from error
    except (RecursionError, SyntaxError, MemoryError, ValueError, ArithmeticError) as error:
        # Python refuses the compiled code if it nests too deeply or has numbers of 5,000 digits.
        raise DataError(
            f"The template {_shortened(source)} is refused: it is nested too deeply or has too large numbers. "
            "Simplify it."
        ) from error


def render(template: Template, row: Mapping[str, Any]) -> str:
    """Fills a template from a row, and strips white space at both ends.

    Each column is a variable; `row` holds them all, for names that are not identifiers:
    `{{ row['star rating'] }}`.

    Raises:
        DataError: The template names a column that the row does not have, or fails on its value.
    """
    try:
        with budget_of(template, row):
            return template.render({**row, "row": row}).strip()
    except UndefinedError as error:
        columns = ", ".join(map(str, list(row)[:_MOST_NAMED])) + (", ..." if len(row) > _MOST_NAMED else "")
        raise DataError(f"The template asks for what is not there: {error}. Columns: {columns}.") from error
    except (RecursionError, MemoryError) as error:
        raise DataError(
            "The template fails on a row: it is nested too deeply or too large. Simplify it."
        ) from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise DataError(
            f"The template fails on a row: {_clause(error)}. Correct the template or the row."
        ) from error


def _clause(error: Exception) -> str:
    """Returns an error's message without its full stop: Jinja ends some of its messages with one."""
    return str(error).rstrip(".")


def _shortened(source: str) -> str:
    return repr(source if len(source) <= 200 else f"{source[:200]}...")


def column_template(column: str) -> str:
    """Returns the default template of one column: its text, and the cue on a separate line."""
    plain = column.isidentifier() and column not in _RESERVED
    return f"{{{{ {column if plain else f'row[{column!r}]'} }}}}\n{CUE}"


def nested_template(path: Sequence[str]) -> str:
    """Returns the default template of a key in a nested column."""
    return f"{{{{ row{''.join(f'[{key!r}]' for key in path)} }}}}\n{CUE}"


@lru_cache(maxsize=_KEPT)
def reads_row(source: str) -> bool:
    """Whether a template reads anything of a row, so that two rows can give two texts.

    Raises:
        DataError: It is not valid Jinja.
    """
    compile_template(source)
    return bool(meta.find_undeclared_variables(_environment.parse(source)))


@lru_cache(maxsize=_KEPT)
def single_path(source: str) -> tuple[str, ...] | None:
    """Returns the one path of keys that a template reads, such as `("meta", "title")`; None if it reads several.

    Raises:
        DataError: It is not valid Jinja.
    """
    compile_template(source)
    tree = _environment.parse(source)
    inner: set[int] = {id(call.node) for call in tree.find_all(nodes.Call)}  # methods, not keys
    every: list[nodes.Getitem | nodes.Getattr] = [
        *tree.find_all(nodes.Getitem),
        *tree.find_all(nodes.Getattr),
    ]
    accesses = [node for node in every if id(node) not in inner]
    paths = {id(node): path for node in accesses if (path := _path(node)) is not None}
    within = {id(node.node) for node in accesses if id(node) in paths}
    ends = {path for node, path in paths.items() if node not in within}
    read = {name.name for name in tree.find_all(nodes.Name) if id(name) not in within}
    read &= meta.find_undeclared_variables(tree)
    return ends.pop() if len(ends) == 1 and not read else None


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    """Returns the keys from a column to what a chain of accesses gives; None if a key is not fixed text."""
    if isinstance(node, nodes.Name):
        return () if node.name == "row" else (node.name,)
    if isinstance(node, nodes.Getattr):
        key: object = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        key = node.arg.value
    else:
        return None
    before = _path(node.node)
    return (*before, key) if before is not None and isinstance(key, str) else None


def template_columns(source: str) -> list[str]:
    """Returns the columns that a template reads, by name or as `row[...]`, in the order of their first use.

    Raises:
        DataError: It is not valid Jinja.
    """
    compile_template(source)
    tree = _environment.parse(source)
    free = meta.find_undeclared_variables(tree) - {"row"}
    named = [node.name for node in tree.find_all(nodes.Name) if node.name in free]
    subscripts = [
        str(node.arg.value)
        for node in tree.find_all(nodes.Getitem)
        if isinstance(node.node, nodes.Name) and node.node.name == "row" and isinstance(node.arg, nodes.Const)
    ]
    return list(dict.fromkeys([*named, *subscripts]))
