"""docs/reference/errors.md explains every code that a message can end in, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import spoton
from spoton import errors
from tests.acceptance.pages import CHECKOUT

PAGE = (CHECKOUT / "docs" / "reference" / "errors.md").read_text()
CLASSES = {
    thing.__name__: thing.code
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, errors.SpotonError)
}


def test_every_class_has_a_code_of_its_own() -> None:
    assert len(set(CLASSES.values())) == len(CLASSES) > 8
    assert all("code" in vars(getattr(errors, name)) for name in CLASSES)


def test_every_code_is_explained_and_nothing_else() -> None:
    source = "".join(path.read_text() for path in Path(spoton.__file__).parent.rglob("*.py"))
    beside = set(re.findall(r"\b(E-[A-Z][A-Z-]+)\b", source)) - set(CLASSES.values())
    sections = re.findall(r"^## (E-[A-Z-]+)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted({*CLASSES.values(), *beside}) and len(beside) == 4


def test_the_table_names_class_and_code() -> None:
    rows = dict(re.findall(r"^\| \[`(E-[A-Z-]+)`\]\(#[a-z-]+\) \| `?(\w*)", PAGE, re.MULTILINE))
    assert {code: name for name, code in CLASSES.items()}.items() <= rows.items()
