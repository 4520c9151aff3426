"""Amounts are exact at every digit, and only FSPIOP's own form is read."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.money import MalformedAmount, format_amount, from_numeric, parse_amount

LARGEST = 999_999_999_999_999_999_9999


@given(st.integers(min_value=0, max_value=LARGEST))
def test_what_is_written_is_read_back(units: int) -> None:  # D26
    assert parse_amount(format_amount(units)) == units


@given(st.integers(min_value=-LARGEST, max_value=LARGEST))
def test_numeric_and_text_agree(units: int) -> None:  # D26
    assert from_numeric(Decimal(format_amount(units))) == units


@pytest.mark.parametrize(
    ("text", "units"),
    [("0", 0), ("1", 10_000), ("0.0001", 1), ("10.5", 105_000), ("999999999999999999.9999", LARGEST)],
)
def test_amounts(text: str, units: int) -> None:
    assert parse_amount(text) == units
    assert format_amount(units) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "01",
        "1.",
        "1.0",
        "1.50",
        ".5",
        "1.23456",
        "1e3",
        "1,5",
        "1 ",
        "1\n",
        "١",
        "1" * 19,
        "NaN",
        "1.0000",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MalformedAmount):
        parse_amount(text)
