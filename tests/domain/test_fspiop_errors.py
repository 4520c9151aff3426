"""Errors say what clients compare to the letter, and stay as short as FSPIOP allows."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.fspiop_errors import (
    DESCRIPTION_LENGTH_MAX,
    ErrorCode,
    FspiopError,
    fspiop_error,
    payee_inactive,
    payee_not_found,
    payer_inactive,
    payer_not_found,
)


def test_the_name_of_the_code_goes_before_the_detail() -> None:  # BULK-137
    assert fspiop_error(ErrorCode.VALIDATION_ERROR, "why") == FspiopError("3100", "Generic validation error - why")
    assert fspiop_error(ErrorCode.TRANSFER_EXPIRED) == FspiopError("3303", "Transfer expired")


@given(st.sampled_from(ErrorCode), st.text(max_size=300))
def test_a_description_is_never_empty_and_never_too_long(code: ErrorCode, detail: str) -> None:
    error = fspiop_error(code, detail)
    assert (error.code, len(error.code)) == (code.code, 4)
    assert 1 <= len(error.description) <= DESCRIPTION_LENGTH_MAX == 128
    assert error.description.startswith(code.text)


def test_a_description_uses_all_of_its_room() -> None:
    assert len(fspiop_error(ErrorCode.VALIDATION_ERROR, "x" * 300).description) == DESCRIPTION_LENGTH_MAX


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (payee_not_found, FspiopError("3203", "Payee FSP ID not found - Participant x not found")),
        (payee_inactive, FspiopError("3203", "Payee FSP ID not found - Participant x is inactive")),
        (payer_not_found, FspiopError("3202", "Payer FSP ID not found - Participant x not found")),
        (payer_inactive, FspiopError("3202", "Payer FSP ID not found - Participant x is inactive")),
    ],
)
def test_texts_about_participants(
    error: Callable[[str], FspiopError], expected: FspiopError
) -> None:  # reference §11.16
    assert error("x") == expected


def test_codes_are_fspiops() -> None:  # BULK-137
    """Four digits, the first of which is the category: communication, server, client, payer, payee; each code once."""
    codes = [code.code for code in ErrorCode]
    assert len(set(codes)) == len(codes)
    assert all(len(code) == 4 and code.isdigit() and code[0] in "12345" for code in codes)
