"""Parses JSON and YAML from untrusted sources, in bounded depth, size and time.

Both parsers recurse at every level of nesting, and so does code that reads their values. Aliases let a YAML file of one
kilobyte expand to more values than fit into memory. So this module limits the depth and the number of values. Every
failure is a `MalformedError`.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

MOST_LEVELS = 60
"""Deepest nesting of lists and mappings; spoton's own files have at most ten levels."""

MOST_YAML_VALUES = 100_000
"""Most values in a YAML file, counting those that aliases repeat."""

_LONGEST_NUMBER = 4_300
"""Most digits of an integer; Python refuses to convert more to or from text."""


class MalformedError(ValueError):
    """Text is not JSON or YAML, or exceeds a limit; the message says why, and where if known."""


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
        MalformedError: It is not JSON, or is nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # a number of 5,000 digits, bytes that are not text, and what is not JSON
        raise MalformedError(_in_words(error)) from error
    brackets = (
        (text.count("[") + text.count("{"))
        if isinstance(text, str)
        else (text.count(b"[") + text.count(b"{"))
    )
    if brackets > MOST_LEVELS:
        _require_shallow(value)
    return value


def parse_yaml(text: str) -> Any:
    """Returns the value of a YAML text, made of plain values only.

    Raises:
        MalformedError: It is not YAML, is nested too deeply, or its aliases stand for too many values.
    """
    try:
        _require_shallow_yaml(text)
        loader = _loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _values_of(node, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise _too_deep() from error
    except (MalformedError, MemoryError):
        raise
    except Exception as error:
        # Broad, since PyYAML's constructors raise many types for a value that does not fit its tag (`!!bool x` raises
        # KeyError, `!!timestamp x` AttributeError).
        raise MalformedError(_in_words(error)) from error


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        parts = [
            part
            for holder in level
            if isinstance(holder, dict | list)
            for part in (holder.values() if isinstance(holder, dict) else holder)
        ]
        if not parts:
            return
        level = parts
    raise _too_deep()


def _require_shallow_yaml(text: str) -> None:
    """Checks depth on the parser's events, which need no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_LEVELS:
            raise _too_deep()


def _values_of(node: yaml.Node, known: dict[int, int], inside: set[int]) -> int:
    """Returns the number of values in a node, including those behind aliases."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in inside:
        raise MalformedError("it holds a value that contains itself")
    inside.add(id(node))
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif node.tag == "tag:yaml.org,2002:int" and len(node.value) > _LONGEST_NUMBER:
        raise MalformedError(f"it holds a whole number of more than {_LONGEST_NUMBER:,} digits")
    count = 1 + sum(_values_of(part, known, inside) for part in parts)
    if count > MOST_YAML_VALUES:
        raise MalformedError(f"it stands for more than {MOST_YAML_VALUES:,} values")
    inside.discard(id(node))
    known[id(node)] = count
    return count


def _loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _too_deep() -> MalformedError:
    return MalformedError(f"it is nested more than {MOST_LEVELS} levels deep")


def _in_words(error: Exception) -> str:
    text = str(error)
    if text.startswith("Exceeds the limit"):
        return f"it holds a whole number of more than {_LONGEST_NUMBER:,} digits"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason}, at character {error.position + 1}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return text or type(error).__name__
