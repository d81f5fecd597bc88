"""Jinja templates over one row of data, sandboxed: a template can format a row and nothing else."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from spoton.errors import DataError

_RESERVED = frozenset("and or not in is if else true false none True False None row loop self".split())


def _plain(text: object) -> str:
    """Filter `plain`: HTML entities as characters, runs of white space as one space."""
    return " ".join(html.unescape(str(text)).split())


def _fifths(score: object) -> str:
    """Filter `fifths`: a score rounded to the nearest fifth, as T5 does for STS-B ("3.8")."""
    return f"{round(float(str(score)) * 5) / 5:.1f}"


def _sentence(text: object) -> str:
    """Filter `sentence`: as `plain`, with a full stop where no mark ends it."""
    said = _plain(text)
    return said if said.endswith((".", "!", "?")) else f"{said}."


_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_environment.filters["plain"] = _plain
_environment.filters["fifths"] = _fifths
_environment.filters["sentence"] = _sentence


def compile_template(source: str) -> Template:
    """Compile a template.

    Raises:
        DataError: It is not valid Jinja.
    """
    try:
        return _environment.from_string(source)
    except TemplateError as error:
        raise DataError(
            f"The template {source!r} is not valid Jinja: {error}. Columns are written {{{{ column }}}}."
        ) from error


def render(template: Template, row: Mapping[str, Any]) -> str:
    """Fill a template from a row, without white space at the ends.

    Columns are variables of their own; `row` holds them all, for names that are no identifiers:
    `{{ row['star rating'] }}`.

    Raises:
        DataError: The template names a column that the row does not have, or fails on its value.
    """
    try:
        return template.render({**row, "row": row}).strip()
    except UndefinedError as error:
        columns = ", ".join(map(str, row))
        raise DataError(f"The template asks for what is not there: {error}. Columns: {columns}.") from error
    except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise DataError(f"The template fails on a row: {error}. Correct the template or the row.") from error


def column_template(column: str, cue: str = "Answer:") -> str:
    """The default template of one column: its text, and the cue on a line of its own."""
    plain = column.isidentifier() and column not in _RESERVED
    return f"{{{{ {column if plain else f'row[{column!r}]'} }}}}\n{cue}"


def nested_template(path: Sequence[str], cue: str = "Answer:") -> str:
    """The default template of a key in a nested column."""
    return f"{{{{ row{''.join(f'[{key!r}]' for key in path)} }}}}\n{cue}"


def template_columns(source: str) -> list[str]:
    """The columns a template reads, by name or through `row[...]`, in the order of their first use.

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
