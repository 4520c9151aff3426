"""Decisions about a bulk in full: every field of what is decided, every limit at its very edge, every text."""

import dataclasses
from typing import Any

import pytest

from domain.bulk_fulfil import (
    OMITTED,
    REJECTED_BY_PAYEE,
    FulfilDecision,
    FulfilRules,
    FulfilVerdict,
    ItemAnswer,
    MemberAnswer,
    decide_bulk_fulfil,
)
from domain.bulk_get import BulkToShow, BulkView, Role, View, decide_bulk_get
from domain.bulk_prepare import BulkPrepareDecision, BulkRules, Verdict, decide_bulk_prepare
from domain.bulk_processing import (
    BulkStep,
    BulkTally,
    FulfilOutcome,
    ItemNews,
    ItemStep,
    decide_bulk,
    decide_items,
    is_expired_error,
)
from domain.fspiop_errors import TRANSFER_EXPIRED, FspiopError
from domain.states import BulkState, ItemState
from tests.domain.test_requests import FACTS, KNOWN, NO, NOW, YES, A, B, fulfil_with, with_faults
from tests.domain.test_transfers import NO_FUNDS

RULES = BulkRules()
REFUSED = FspiopError("5104", "No")
UNREADABLE = FspiopError(
    "2001", "Internal server error - the request's payload could not be read; please send it again"
)


def invalid(detail: str) -> FspiopError:
    return FspiopError("3100", f"Generic validation error - {detail}")


def test_bulk_prepare_says_why() -> None:
    horizon = RULES.expiration_horizon_ms
    twice = (b"\xff" * 16, b"\x01" * 16, b"\x00" * 16, b"\x01" * 16)
    for change, error in [
        ({"expiration_ms": NOW}, invalid("expiration is not in the future")),
        ({"expiration_ms": NOW + horizon + 1}, invalid("expiration is more than 30 days ahead")),
        ({"payee_fsp": "payer"}, invalid("payerFsp and payeeFsp must differ")),
        ({"transfer_ids": ()}, invalid("individualTransfers holds 0 items; 1 to 1000 are allowed")),
        (
            {"transfer_ids": twice},
            invalid("transferId 01010101-0101-0101-0101-010101010101 stands twice in the bulk"),
        ),
    ]:
        decided = decide_bulk_prepare(with_faults({"request": change}), RULES)
        assert decided == BulkPrepareDecision(Verdict.REFUSE, error)
    unread = dataclasses.replace(FACTS, request=None)
    assert decide_bulk_prepare(unread, RULES) == BulkPrepareDecision(Verdict.REFUSE, UNREADABLE)
    again = dataclasses.replace(unread, known=KNOWN)
    assert decide_bulk_prepare(again, RULES) == BulkPrepareDecision(Verdict.ANSWER_ERROR, UNREADABLE)


@pytest.mark.parametrize(
    "change",
    [
        {"expiration_ms": NOW + 1},
        {"expiration_ms": NOW + RULES.expiration_horizon_ms},
        {"transfer_ids": (b"a" * 16,)},
        {"transfer_ids": tuple(number.to_bytes(16, "big") for number in range(RULES.items_max))},
    ],
)
def test_bulk_prepare_accepts_up_to_its_limits(change: dict[str, Any]) -> None:  # BULK-129
    assert decide_bulk_prepare(with_faults({"request": change}), RULES) == BulkPrepareDecision(Verdict.ACCEPT)


def test_bulk_prepare_refuses_one_item_past_its_limit() -> None:  # BULK-129
    ids = tuple(number.to_bytes(16, "big") for number in range(RULES.items_max + 1))
    error = invalid("individualTransfers holds 1001 items; 1 to 1000 are allowed")
    assert decide_bulk_prepare(with_faults({"request": {"transfer_ids": ids}}), RULES).error == error


def test_bulk_prepare_looks_at_the_payee_although_the_destination_is_good() -> None:
    facts = with_faults({"destination": "other"}, {"request": {"payee_fsp": "sleeper"}})
    assert decide_bulk_prepare(facts, RULES).error == FspiopError(
        "3203", "Payee FSP ID not found - Participant sleeper is inactive"
    )
    absent = with_faults({"destination": "hub"}, {"request": {"payee_fsp": "hub"}})
    assert decide_bulk_prepare(absent, RULES).error == FspiopError(
        "3203", "Payee FSP ID not found - Participant hub not found"
    )


# bulk-fulfil


def test_bulk_fulfil_says_why() -> None:
    unread = dataclasses.replace(fulfil_with(), request=None)
    z = ItemAnswer(b"\xee" * 16, None, None)
    for facts, error in [
        (unread, UNREADABLE),
        (
            fulfil_with(answers=[YES, z]),
            invalid("transferId eeeeeeee-eeee-eeee-eeee-eeeeeeeeeeee was not forwarded in this bulk"),
        ),
        (
            fulfil_with(answers=[YES, YES]),
            invalid("transferId 61616161-6161-6161-6161-616161616161 stands twice"),
        ),
    ]:
        assert decide_bulk_fulfil(facts, FulfilRules()) == FulfilDecision(FulfilVerdict.ANSWER_ERROR, error)


FUTURE = invalid("completedTimestamp is in the future")
OLD = invalid("completedTimestamp is older than 300 s")


@pytest.mark.parametrize(
    ("completed_ms", "error"),
    [(NOW + 5_000, None), (NOW + 5_001, FUTURE), (NOW, None), (NOW - 300_000, None), (NOW - 300_001, OLD)],
)
def test_a_timestamp_at_the_edges(completed_ms: int, error: FspiopError | None) -> None:
    rules = FulfilRules(completed_timestamp_age_ms=300_000)
    decided = decide_bulk_fulfil(fulfil_with(completed_ms=completed_ms), rules)
    assert decided.verdict is FulfilVerdict.ACCEPT
    assert (decided.outcome, decided.error) == (FulfilOutcome.INVALID if error else FulfilOutcome.VALID, error)


@pytest.mark.parametrize(
    ("changes", "outcome", "error", "members"),
    [
        ({}, FulfilOutcome.VALID, None, [MemberAnswer(11, A, "f" * 43), MemberAnswer(12, B, None, NO.error, True)]),
        (
            {"answers": [ItemAnswer(A, None, None)]},
            FulfilOutcome.VALID,
            None,
            [MemberAnswer(11, A), MemberAnswer(12, B, None, OMITTED)],
        ),
        (
            {"state": "REJECTED"},
            FulfilOutcome.REJECTED,
            REJECTED_BY_PAYEE,
            [MemberAnswer(11, A, None, REJECTED_BY_PAYEE, True), MemberAnswer(12, B, None, NO.error, True)],
        ),
        (
            {"state": None, "error": REFUSED, "answers": []},
            FulfilOutcome.ERROR,
            REFUSED,
            [MemberAnswer(11, A, None, REFUSED, True), MemberAnswer(12, B, None, REFUSED, True)],
        ),
        (
            {"completed_ms": NOW + 5_001},
            FulfilOutcome.INVALID,
            FUTURE,
            [MemberAnswer(11, A, None, FUTURE), MemberAnswer(12, B, None, FUTURE)],
        ),
    ],
)
def test_what_goes_on_to_fulfil(
    changes: dict[str, Any], outcome: FulfilOutcome, error: FspiopError | None, members: list[MemberAnswer]
) -> None:  # D11, D23
    decided = decide_bulk_fulfil(fulfil_with(**changes), FulfilRules())
    assert decided == FulfilDecision(FulfilVerdict.ACCEPT, error, outcome, members)


def test_the_switchs_own_words_for_what_the_payee_did_not_say() -> None:
    assert FspiopError("5000", "Generic Payee error - the payee's answer does not name this transfer") == OMITTED
    assert FspiopError("5100", "Payee rejection - the payee rejected the bulk") == REJECTED_BY_PAYEE


# bulk-get


def test_what_is_shown_in_full() -> None:
    unread = decide_bulk_get("payer", None, unread_request_of_source=True)
    assert unread == BulkView(View.STATE, BulkState.RECEIVED, Role.PAYER)
    bulk = BulkToShow("payer", "payee", BulkState.ACCEPTED, was_accepted=True)
    for state, view in [
        (BulkState.ACCEPTED, View.ITEMS),
        (BulkState.PROCESSING, View.STATE),
        (BulkState.EXPIRED, View.RESULT),
    ]:
        shown = decide_bulk_get("payee", dataclasses.replace(bulk, state=state), unread_request_of_source=False)
        assert shown == BulkView(view, state, Role.PAYEE)


# bulk-processing


def test_of_several_news_about_an_item_each_is_judged_by_what_the_one_before_made_of_it() -> None:  # D3, D14
    news = [
        ItemNews(1, 7, "bulk-prepare", "success", None),
        ItemNews(1, 99, "bulk-prepare", "success", None),
        ItemNews(1, 8, "bulk-prepare", "error", NO_FUNDS),
        ItemNews(1, 7, "reject", "success", REFUSED),
        ItemNews(1, 7, "bulk-commit", "success", None),
        ItemNews(1, 8, "bulk-prepare", "success", None),
    ]
    items = {7: ItemState.RECEIVED, 8: ItemState.RECEIVED}
    assert decide_items(news, items, {}) == [
        ItemStep(7, ItemState.REJECTED, REFUSED),
        ItemStep(8, ItemState.RECEIVED_INVALID, NO_FUNDS),
    ]
    assert items == {7: ItemState.RECEIVED, 8: ItemState.RECEIVED}, "facts are not touched"


def tally(state: BulkState, outcome: FulfilOutcome | None = None, expired: int = 0, **items: int) -> BulkTally:
    return BulkTally(5, state, {ItemState[name]: count for name, count in items.items()}, expired, outcome)


@pytest.mark.parametrize(
    ("facts", "to_state"),
    [
        (tally(BulkState.PENDING_PREPARE, RECEIVED=1, ACCEPTED=1), None),
        (tally(BulkState.PENDING_PREPARE, RECEIVED_INVALID=1, ACCEPTED=1), BulkState.ACCEPTED),
        (tally(BulkState.PENDING_PREPARE, RECEIVED_INVALID=1), BulkState.REJECTED),
        (tally(BulkState.PENDING_PREPARE, EXPIRED=1), BulkState.EXPIRED),
        (tally(BulkState.PENDING_PREPARE, expired=1, RECEIVED_INVALID=1), BulkState.EXPIRED),
        (tally(BulkState.PROCESSING, ACCEPTED=1, COMPLETED=1), BulkState.PENDING_FULFIL),
        (tally(BulkState.PENDING_FULFIL, ACCEPTED=1, COMPLETED=1), None),
        (tally(BulkState.PENDING_FULFIL, COMPLETED=1, EXPIRED=1), BulkState.COMPLETED),
        (tally(BulkState.PROCESSING, FulfilOutcome.INVALID, FULFIL_INVALID=1), BulkState.INVALID),
        # A fulfil that was invalid as a whole commits nothing; if money did move all the same, that is what counts.
        (tally(BulkState.PROCESSING, FulfilOutcome.INVALID, FULFIL_INVALID=1, COMPLETED=1), BulkState.COMPLETED),
        (tally(BulkState.PROCESSING, FulfilOutcome.ERROR, REJECTED=1), BulkState.REJECTED),
        (tally(BulkState.EXPIRING, RECEIVED=1, EXPIRED=1), None),
        (tally(BulkState.EXPIRING, ACCEPTED=1, EXPIRED=1), None),
        (tally(BulkState.EXPIRING, EXPIRED=1), BulkState.EXPIRED),
        (tally(BulkState.EXPIRING, COMPLETED=1, EXPIRED=1), BulkState.COMPLETED),
        (tally(BulkState.EXPIRING, RECEIVED_INVALID=1), BulkState.REJECTED),
    ],
)
def test_the_step_that_a_bulks_rows_call_for(facts: BulkTally, to_state: BulkState | None) -> None:
    """BULK-26, BULK-30, BULK-31, BULK-44, BULK-126, X-30."""
    assert decide_bulk(facts) == (None if to_state is None else BulkStep(5, facts.state, to_state))


def test_no_news_moves_a_bulk_that_waits_for_somebody_else_or_has_ended() -> None:  # BULK-135
    moved_by_news = {BulkState.PENDING_PREPARE, BulkState.PROCESSING, BulkState.PENDING_FULFIL, BulkState.EXPIRING}
    for state in set(BulkState) - moved_by_news:
        assert decide_bulk(tally(state, COMPLETED=1)) is None


def test_expired_is_the_error_3303_and_no_other() -> None:
    assert is_expired_error(TRANSFER_EXPIRED)
    assert not is_expired_error(NO_FUNDS)
    assert not is_expired_error(None)
