"""Ids keep their text, keys keep a bulk's items together, and nothing else is read as an id."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.identifiers import (
    ID_BYTES,
    ITEMS_PER_BULK,
    bulk_key_of,
    id_bytes,
    id_text,
    is_single,
    item_number_of,
    single_key,
    transfer_key,
)


@given(st.uuids())
def test_an_id_is_written_as_it_was_read(one: uuid.UUID) -> None:
    assert id_bytes(str(one)) == one.bytes
    assert id_text(one.bytes) == str(one)
    assert id_bytes(str(one).upper()) == one.bytes


@pytest.mark.parametrize("text", ["", "00" * (ID_BYTES - 1), "00" * (ID_BYTES + 1), "0" * 60])
def test_what_is_not_16_bytes_long_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{text[:40]}' is not a UUID$"):
        id_bytes(text)


def test_what_is_not_hexadecimal_is_no_id() -> None:
    with pytest.raises(ValueError, match="non-hexadecimal"):
        id_bytes("g" * 32)


@given(st.integers(1, 2**40), st.integers(1, ITEMS_PER_BULK - 1))
def test_a_key_tells_its_bulk_and_its_number(bulk_key: int, number: int) -> None:
    key = transfer_key(bulk_key, number)
    assert (bulk_key_of(key), item_number_of(key)) == (bulk_key, number)
    assert bulk_key * ITEMS_PER_BULK < key < (bulk_key + 1) * ITEMS_PER_BULK, "a bulk's items are one range"
    assert not is_single(key)


@given(st.integers(1, 2**40))
def test_a_single_transfer_stands_where_no_item_does(number: int) -> None:
    key = single_key(number)
    assert is_single(key)
    assert (bulk_key_of(key), item_number_of(key)) == (number, 0)


@pytest.mark.parametrize("number", [-1, 0, ITEMS_PER_BULK])
def test_an_item_number_without_room_in_the_key_is_a_bug(number: int) -> None:
    with pytest.raises(AssertionError):
        transfer_key(1, number)
