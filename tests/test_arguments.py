"""Arguments of the wrong kind are named in a few words."""

from __future__ import annotations

import numpy as np
import pytest

from spoton.arguments import is_count, require_kind, shown
from spoton.errors import DataError


def test_a_value_of_another_kind_is_refused_with_the_next_step() -> None:
    require_kind("a", str, "name", DataError, "a text.")
    with pytest.raises(DataError, match=r"^name is 3; expected a text. Give one.$"):
        require_kind(3, str, "name", DataError, "a text. Give one.")


def test_a_message_shows_short_values_and_the_type_of_long_ones() -> None:
    assert (shown("a"), shown(None), shown(1.5)) == ("'a'", "None", "1.5")
    assert len(shown("a" * 1000)) < 80
    assert shown(list(range(1000))) == "of type list"


@pytest.mark.parametrize("value", [1, 20, np.int64(3)])
def test_counts_of_python_and_numpy(value: object) -> None:
    assert is_count(value)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, [1]])
def test_what_is_not_a_count(value: object) -> None:
    assert not is_count(value)
