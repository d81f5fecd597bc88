"""A subset of Jinja that always terminates: every loop, text and list is charged to a budget per row.

A template may come from a stranger's card, and a sandbox alone does not stop `'a' * 2_000_000_000` or two nested
loops over 100,000 numbers. So only the statements and functions listed here are allowed, and a template's tree is
rewritten before it is compiled: loops, comparisons, lists and joined texts charge the budget with their cost. A text of
n characters costs n; an iteration of a loop costs the size of its body. This bounds time, memory and output.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, time, timedelta
from functools import wraps
from numbers import Number
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from jinja2 import StrictUndefined, Template, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.tests import TESTS
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

LONGEST_SOURCE = 50_000
"""Most characters of a template; the longest of the catalog has some hundreds."""

PER_ROW = 5_000
"""Budget of every row, in characters or values; some milliseconds."""

PER_SIZE = 20
"""Additional budget of a row per unit of its size, since long documents pass through several filters."""

BUDGET = 1_000_000
"""Additional budget of all rows of a template together; a second or two."""

_LARGEST_NUMBER = 100_000  # as an argument: a width, a count
_MOST_BITS = 20_000  # of an integer; Python converts at most 4,300 digits to text
_WIDE = re.compile(r"%[^a-zA-Z%]*(\d{4}|\*)|\{[^}]*\d{4}")  # '%10000d', '%*d', '{:10000}'
_REFUSED = (
    nodes.Macro, nodes.CallBlock, nodes.Block, nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport,
    nodes.ScopedEvalContextModifier, nodes.EvalContextModifier,
)  # fmt: skip
_FILTERS = (
    "abs attr batch capitalize center count d default dictsort e escape first float format indent int items join last "
    "length list lower map max min reject rejectattr replace reverse round select selectattr slice sort string sum "
    "title trim truncate unique upper wordcount"
).split()
_TESTS = (
    "boolean defined divisibleby eq equalto even false filter float ge greaterthan gt in integer iterable le lessthan "
    "lower lt mapping ne none number odd sameas sequence string test true undefined upper == != < <= > >="
).split()
_METHODS = frozenset(
    (
        "capitalize casefold center count endswith find format get index isalnum isalpha isdecimal isdigit islower "
        "isnumeric isoformat isspace istitle isupper items join keys ljust lower lstrip partition removeprefix "
        "removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strftime strip "
        "swapcase title upper values zfill"
    ).split()
)
_TEXTS = (str, bytes)
_LISTS = (list, tuple, set, frozenset)
_PLAIN = (str, bytes, int, float, list, tuple, dict, date, time)

_left: ContextVar[int | None] = ContextVar("what is left of the budget of the template that is being filled")
_reserves: WeakKeyDictionary[Template, int] = WeakKeyDictionary()
"""The rest of `BUDGET` for each template."""


@contextmanager
def budget_of(template: Template, row: Mapping[str, Any]) -> Iterator[None]:
    """Charges a template for one row inside the block."""
    reserve = _reserves.get(template, BUDGET)
    token = _left.set(None)
    share = PER_ROW + PER_SIZE * _size(row)
    _left.set(share + reserve)
    try:
        yield
    finally:
        _reserves[template] = min(reserve, _left.get(None) or 0)
        _left.reset(token)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates whose cost is bounded."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        # Not optimized: constant parts would be computed during compilation, where there is no budget.
        super().__init__(undefined=StrictUndefined, autoescape=False, optimized=False, finalize=_shown)
        self.globals = {"range": safe_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: _charging(FILTERS[name]) for name in _FILTERS if name in FILTERS}
        self.filters |= {"__each": _each, "__seen": _seen, "__concat": _concat}
        self.tests = {name: TESTS[name] for name in _TESTS if name in TESTS}

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Adds one of spoton's filters."""
        self.filters[name] = _charging(function)

    def limited(self, source: str) -> nodes.Template:
        """Returns the tree of a template with its charges.

        Raises:
            SecurityError: It is too long, or has a statement that is not allowed.
            TemplateError: It is not valid Jinja.
        """
        if len(source) > LONGEST_SOURCE:
            raise SecurityError(f"it has {len(source):,} characters, expected at most {LONGEST_SOURCE:,}")
        tree = self.parse(source)
        for node in tree.find_all(_REFUSED):
            raise SecurityError(f"{type(node).__name__.lower()} is not for templates of a row")
        if any(loop.recursive for loop in tree.find_all(nodes.For)):
            raise SecurityError("a loop of a template may not be recursive")
        limited: nodes.Template = _Charges().visit(tree)
        return limited

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes with two values, unless the result is too large."""
        _require_small_result(operator, left, right)
        result = self.binop_table[operator](left, right)
        _charge(_size(result))
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # as jinja has it
        """Calls a method of a plain value, or one of the few allowed functions."""
        _require_callable(__self, __obj)
        owner = _owner(__obj)
        _charge(_size(owner) if isinstance(owner, _PLAIN) else 1)
        _require_small(getattr(__obj, "__name__", ""), owner, args, kwargs)
        return _charged(super().call(__context, __obj, *args, **kwargs))


class _Charges(NodeTransformer):
    """Wraps expensive nodes in a charge."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        cost = sum(map(_static_cost, node.body)) + (_static_cost(node.test) if node.test is not None else 0)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "__each", nodes.Const(1 + cost))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "__concat")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "__seen")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "__seen")
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        node.node = _filtered(node.node, "__seen")
        node.args = [_filtered(arg, "__seen") for arg in node.args]
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "__seen")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "__seen")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx == "store" else _filtered(node, "__seen")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "__seen") if isinstance(node.arg, nodes.Slice) else node


def _filtered(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _static_cost(node: nodes.Node) -> int:
    """Returns the cost of one pass over a part of the tree: its nodes and its text."""
    text = len(node.data) if isinstance(node, nodes.TemplateData) else 0
    return 1 + text + sum(map(_static_cost, node.iter_child_nodes()))


def _charge(cost: int) -> None:
    left = _left.get(None)
    if left is None:  # a constant part, during compilation
        left = BUDGET
        if cost > left:
            raise SecurityError("it costs too much")
        return
    if cost > left:
        raise SecurityError(
            "it takes too much time or makes too long a text: too many turns of loops, or too large values"
        )
    _left.set(left - cost)


def _charged(value: Any) -> Any:
    """Charges for a result and returns it; an iterator becomes a list."""
    if isinstance(value, Iterator) and not isinstance(value, LoopContext):
        value = list(_each(value, 1))
    _charge(_size(value))
    return value


def _size(value: Any) -> int:
    """Returns the number of characters and values in a value, nested ones included, counted up to the budget."""
    most = (_left.get(None) or BUDGET) + 1
    total, waiting = 0, [value]
    while waiting and total <= most:
        part = waiting.pop()
        total += 1
        # Tuples of types, and abstract ones last: a hostile template spends its budget in this loop.
        if isinstance(part, _TEXTS):
            total += len(part)
        elif isinstance(part, int):
            total += part.bit_length() // 64
        elif isinstance(part, _LISTS):
            waiting += part
        elif isinstance(part, Mapping):
            waiting += part.keys()
            waiting += part.values()
    return total


def _each(values: Iterable[Any], cost: int) -> Iterator[Any]:
    for value in values:
        _charge(cost)
        yield value


def _seen(value: Any) -> Any:
    if not isinstance(value, Undefined):
        _charge(_size(value))
    return value


def _concat(parts: Iterable[Any]) -> str:
    return "".join(map(_shown, parts))


def _shown(value: Any) -> Any:
    """Returns a value as text, charged for before it is made."""
    if isinstance(value, Undefined):
        return str(value)  # raises, with the name of the missing value
    if isinstance(value, str):
        _charge(_size(value))
        return value
    if isinstance(
        value, (*_LISTS, Mapping, bytes, bytearray)
    ):  # as for a column by itself: see `cells.require_text`
        raise TypeError(_not_text(value))
    if not isinstance(value, (Number, date, time, timedelta, UUID, types.NoneType)):
        raise TypeError(
            f"it prints a {type(value).__name__}, which is not text; its key or column is missing in this row"
        )
    _charge(_size(value))
    return str(value)


def _not_text(value: Any) -> str:
    if isinstance(value, _LISTS):
        return "it prints a list, which join(', ') makes text: {{ column | join(', ') }}"
    if isinstance(value, Mapping):
        keys = [str(key) for key in value][:5]
        return f"it prints an object; name one of its keys ({', '.join(keys)}): {{{{ column['key'] }}}}"
    return "it prints bytes that are not text in UTF-8"


def _charging(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a filter that is charged for its arguments and its result."""
    takes_context = hasattr(function, "jinja_pass_arg")

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = args[1:] if takes_context else args
        _charge(sum(_size(value) for value in given if not isinstance(value, Undefined)))
        _require_small(
            function.__name__.removeprefix("sync_").removeprefix("do_"),
            given[0] if given else None,
            given[1:],
            kwargs,
        )
        return _charged(function(*args, **kwargs))

    return run


def _owner(function: Any) -> Any:
    """Returns the object whose method a function is; jinja's sandbox wraps `str.format`."""
    return getattr(getattr(function, "__wrapped__", function), "__self__", None)


def _require_callable(environment: LimitedEnvironment, function: Any) -> None:
    owner = _owner(function)
    name = getattr(function, "__name__", "")
    plain = isinstance(function, types.BuiltinMethodType) and isinstance(owner, _PLAIN) and name in _METHODS
    listed = any(function is known for known in environment.globals.values())
    of_loop = isinstance(owner, LoopContext) and name in ("cycle", "changed")
    formats = (
        isinstance(function, types.FunctionType) and name == "format" and hasattr(function, "__wrapped__")
    )
    if not (plain or listed or of_loop or formats):
        raise SecurityError(f"a template may not call {name or type(function).__name__!r}")


def _require_small(name: str, owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuses calls whose result may be far larger than their arguments."""
    given = [*args, *kwargs.values()]
    for value in given:
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise SecurityError(f"{value if abs(value) < 10**15 else 'a number'} is too large for {name}")
    _charge(sum(map(_size, given)) + 1)
    texts = [len(value) for value in given if isinstance(value, str)]
    size = _size(owner)
    if name == "replace":
        _require_affordable((size + 1) * (max(texts[1:], default=0) + 1))
    elif name == "join":
        parts, glue = owner, max(texts, default=0)
        if isinstance(owner, str) and given and not isinstance(given[0], str):  # the method: glue.join(parts)
            parts, glue = given[0], len(owner)
        count = len(parts) if hasattr(parts, "__len__") else _LARGEST_NUMBER
        _require_affordable(_size(parts) + count * (glue + 1))
    elif name == "indent":
        _require_affordable(
            (size + 1) * (1 + max([*texts, *(v for v in given if isinstance(v, int))], default=4))
        )
    elif name in ("format", "strftime"):
        form = owner if isinstance(owner, str) else (args[0] if args else "")
        if _WIDE.search(str(form)):
            raise SecurityError("it formats to a width of more than 999")


def _require_affordable(cost: int) -> None:
    if cost > (_left.get(None) or BUDGET):
        raise SecurityError("it makes too long a text")


def _require_small_result(symbol: str, left: Any, right: Any) -> None:
    both = isinstance(left, int) and isinstance(right, int)
    if symbol == "*":
        for values, times in ((left, right), (right, left)):
            if isinstance(values, str | bytes | list | tuple) and isinstance(times, int):
                _require_affordable(_size(values) * max(times, 0))
        if both and left.bit_length() + right.bit_length() > _MOST_BITS:
            raise SecurityError("it computes with too large numbers")
    elif symbol == "**" and both and left.bit_length() * max(right, 0) > _MOST_BITS:
        raise SecurityError("it computes with too large numbers")
    elif symbol == "+":
        _charge(_size(left) + _size(right))
    elif symbol == "%" and isinstance(left, str | bytes):
        _charge(_size(right))
        if _WIDE.search(str(left)):
            raise SecurityError("it formats to a width of more than 999")
