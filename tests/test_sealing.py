"""Content that says whether it is whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.sealing import CHECKSUM, sealed, sealed_json, unsealed, unsealed_json

DOCUMENT = {"a": 1.5, "b": [None, True, {"c": "caf\u00e9"}], "lone": "\ud83d"}


@given(st.binary(max_size=200))
def test_bytes_come_back(data: bytes) -> None:
    assert unsealed(sealed(data)) == data


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_flipped_bit_anywhere_and_a_cut_are_noticed(data: bytes, draw: st.DataObject) -> None:
    whole = sealed(data)
    copy = bytearray(whole)
    copy[draw.draw(st.integers(0, len(whole) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    for damaged in (bytes(copy), whole[: draw.draw(st.integers(0, len(whole) - 1))]):
        with pytest.raises(ValueError, match="checksum"):
            unsealed(damaged)


def test_a_document_comes_back_without_its_checksum() -> None:
    assert unsealed_json(sealed_json(DOCUMENT), required=True) == DOCUMENT


def test_a_changed_value_is_noticed_and_another_layout_is_not() -> None:
    written = json.loads(sealed_json(DOCUMENT))
    assert unsealed_json(json.dumps(written, indent=7).encode()) == DOCUMENT
    with pytest.raises(ValueError, match="does not match"):
        unsealed_json(json.dumps(written | {"a": 1.25}).encode())


def test_documents_of_earlier_versions_have_no_checksum() -> None:
    old = json.dumps({"a": 1}).encode()
    assert unsealed_json(old) == {"a": 1} and CHECKSUM not in unsealed_json(old)
    with pytest.raises(ValueError, match="no checksum"):
        unsealed_json(old, required=True)
    with pytest.raises(ValueError, match="expected an object"):
        unsealed_json(b"[1]")
