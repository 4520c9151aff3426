"""The decisions on what FSPs send: the checks run in their order, and the first that fails is the refusal."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from domain.bulk_fulfil import (
    BulkToFulfil,
    FulfilFacts,
    FulfilRequest,
    FulfilRules,
    FulfilVerdict,
    ItemAnswer,
    decide_bulk_fulfil,
)
from domain.bulk_get import BulkToShow, Role, View, decide_bulk_get
from domain.bulk_prepare import (
    BulkPrepareFacts,
    BulkRequest,
    BulkRules,
    KnownBulk,
    Verdict,
    decide_bulk_prepare,
)
from domain.bulk_processing import FulfilOutcome
from domain.fspiop_errors import FspiopError
from domain.states import BulkState

NOW = 1_700_000_000_000
REQUEST = BulkRequest("payer", "payee", NOW + 1_000, (b"a" * 16, b"b" * 16), b"hash")
FACTS = BulkPrepareFacts(
    request_id=b"r" * 16,
    source="payer",
    destination=None,
    received_at_ms=NOW,
    request=REQUEST,
    known=None,
    participants={"payer": True, "payee": True, "other": True, "sleeper": False, "hub": True},
    hub_name="hub",
)
KNOWN = KnownBulk(b"x" * 16, b"hash", "payer", BulkState.COMPLETED)

# Each case fails everything below it in the list as well, and yet is refused for its own reason.
FAULTS: list[tuple[Mapping[str, Any], str]] = [
    ({"request": {"payer_fsp": "other"}}, "FSPIOP-Source header should match Payer FSP"),
    ({"request": {"expiration_ms": NOW}}, "expiration is not in the future"),
    ({"request": {"expiration_ms": NOW + 2**40}}, "expiration is more than 30 days ahead"),
    ({"request": {"payee_fsp": "payer"}}, "payerFsp and payeeFsp must differ"),
    ({"participants": {"payer": False}}, "Participant payer is inactive"),
    ({"request": {"payee_fsp": "ghost"}}, "Participant ghost not found"),
    ({"request": {"payee_fsp": "sleeper"}}, "Participant sleeper is inactive"),
    ({"destination": "phantom"}, "Participant phantom not found"),
    ({"request": {"transfer_ids": ()}}, "individualTransfers holds 0 items; 1 to 1000 are allowed"),
]


def with_faults(*faults: Mapping[str, Any]) -> BulkPrepareFacts:
    facts = FACTS
    for fault in faults:
        for name, value in fault.items():
            if name == "request":
                assert facts.request is not None
                facts = dataclasses.replace(facts, request=dataclasses.replace(facts.request, **value))
            elif name == "participants":
                facts = dataclasses.replace(facts, participants={**facts.participants, **value})
            else:
                facts = dataclasses.replace(facts, **{name: value})
    return facts


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_bulk_prepare_refuses_for_the_first_fault(first: int) -> None:  # BULK-16, BULK-129, BULK-136
    later = [
        fault
        for fault, text in FAULTS[first + 1 :]
        # Two faults of one field cannot stand together.
        if not (
            {"payee_fsp", "expiration_ms"} & set(fault.get("request", {})) & set(FAULTS[first][0].get("request", {}))
        )
    ]
    decision = decide_bulk_prepare(with_faults(*reversed(later), FAULTS[first][0]), BulkRules())
    assert decision.error is not None
    assert FAULTS[first][1] in decision.error.description
    assert decision.verdict is (Verdict.ANSWER_ERROR if first == 0 else Verdict.REFUSE)


def test_a_bulk_without_a_fault_is_accepted() -> None:
    assert decide_bulk_prepare(FACTS, BulkRules()).verdict is Verdict.ACCEPT
    # The hub in FSPIOP-Destination says no more than the body does.
    assert decide_bulk_prepare(with_faults({"destination": "hub"}), BulkRules()).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("source", ["ghost", "hub"])
def test_nobody_is_answered_who_has_no_address(source: str) -> None:
    assert decide_bulk_prepare(with_faults({"source": source}), BulkRules()).verdict is Verdict.IGNORE


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        (KNOWN, Verdict.RESEND),
        (dataclasses.replace(KNOWN, state=BulkState.ACCEPTED), Verdict.IGNORE),
        (dataclasses.replace(KNOWN, request_id=FACTS.request_id, hash=b"other"), Verdict.IGNORE),
        (dataclasses.replace(KNOWN, hash=b"other"), Verdict.ANSWER_ERROR),
        (dataclasses.replace(KNOWN, payer_fsp="other"), Verdict.ANSWER_ERROR),
    ],
)
def test_seen_before(known: KnownBulk, verdict: Verdict) -> None:  # BULK-123
    """The same request: nothing. The same body: the stored callback, once there is one. Another body: 3106."""
    facts = with_faults({"known": known}, {"request": {"payee_fsp": "ghost"}})
    decision = decide_bulk_prepare(facts, BulkRules())
    assert decision.verdict is verdict
    if verdict is Verdict.ANSWER_ERROR:
        assert decision.error == FspiopError("3106", "Modified request")


def test_a_payload_that_cannot_be_read() -> None:  # BULK-128
    unread = with_faults({"request": {}})
    unread = dataclasses.replace(unread, request=None)
    refused = decide_bulk_prepare(unread, BulkRules())
    assert (refused.verdict, refused.error and refused.error.code) == (Verdict.REFUSE, "2001")
    again = decide_bulk_prepare(dataclasses.replace(unread, known=KNOWN), BulkRules())
    assert (again.verdict, again.error and again.error.code) == (Verdict.ANSWER_ERROR, "2001")


A, B = b"a" * 16, b"b" * 16
BULK = BulkToFulfil("payee", BulkState.ACCEPTED, None, None, {A: 11, B: 12})
YES = ItemAnswer(A, "f" * 43, None)
NO = ItemAnswer(B, None, FspiopError("5104", "No"))
FULFIL = FulfilFacts(b"r" * 16, "payee", NOW, FulfilRequest("COMPLETED", None, None, [YES, NO], b"hash"), BULK)


def fulfil_with(**changes: Any) -> FulfilFacts:
    """Facts with changed fields of the facts, the request (state, error, completed_ms, answers) or the bulk (bulk_…)."""
    request, bulk, facts = FULFIL.request, FULFIL.bulk, FULFIL
    assert request is not None
    assert bulk is not None
    for name, value in changes.items():
        if name.startswith("bulk_"):
            bulk = dataclasses.replace(bulk, **{name.removeprefix("bulk_"): value})
        elif name in {"state", "error", "completed_ms", "answers", "hash"}:
            request = dataclasses.replace(request, **{name: value})
        else:
            facts = dataclasses.replace(facts, **{name: value})
    return dataclasses.replace(facts, request=request, bulk=bulk)


@pytest.mark.parametrize(
    ("changes", "verdict", "code"),
    [
        ({"source": "stranger", "bulk_fulfil_hash": b"x"}, FulfilVerdict.ANSWER_ERROR, "3210"),
        ({"bulk_fulfil_request_id": b"r" * 16, "bulk_fulfil_hash": b"x"}, FulfilVerdict.IGNORE, None),
        ({"bulk_fulfil_hash": b"x", "bulk_state": BulkState.COMPLETED}, FulfilVerdict.ANSWER_ERROR, "3106"),
        ({"bulk_fulfil_hash": b"hash", "bulk_state": BulkState.COMPLETED}, FulfilVerdict.RESEND, None),
        ({"bulk_fulfil_hash": b"hash", "bulk_state": BulkState.PROCESSING}, FulfilVerdict.IGNORE, None),
        ({"state": "PROCESSING", "answers": [], "bulk_state": BulkState.PENDING_PREPARE}, FulfilVerdict.IGNORE, None),
        ({"bulk_state": BulkState.PENDING_PREPARE}, FulfilVerdict.ANSWER_ERROR, "3210"),
        ({"bulk_state": BulkState.EXPIRING}, FulfilVerdict.IGNORE, None),
        ({"bulk_state": BulkState.EXPIRED}, FulfilVerdict.IGNORE, None),
        ({"answers": [YES, YES]}, FulfilVerdict.ANSWER_ERROR, "3100"),
        ({"answers": [ItemAnswer(b"z" * 16, None, None)]}, FulfilVerdict.ANSWER_ERROR, "3100"),
        ({"completed_ms": NOW + 5_000}, FulfilVerdict.ACCEPT, None),
        ({"completed_ms": NOW + 5_001}, FulfilVerdict.ACCEPT, "3100"),
        ({"completed_ms": 1}, FulfilVerdict.ACCEPT, None),
    ],
)
def test_bulk_fulfil_checks_in_their_order(
    changes: Mapping[str, Any], verdict: FulfilVerdict, code: str | None
) -> None:
    """D12, D13, BULK-124, BULK-125, D23."""
    decision = decide_bulk_fulfil(fulfil_with(**changes), FulfilRules())
    assert (decision.verdict, decision.error and decision.error.code) == (verdict, code)


def test_an_old_timestamp_is_an_error_only_if_the_scheme_says_so() -> None:
    old = fulfil_with(completed_ms=NOW - 300_001)
    assert decide_bulk_fulfil(old, FulfilRules()).outcome is FulfilOutcome.VALID
    strict = FulfilRules(completed_timestamp_age_ms=300_000)
    assert decide_bulk_fulfil(old, strict).outcome is FulfilOutcome.INVALID


def test_an_unknown_bulk_and_an_unreadable_payload() -> None:
    unknown = dataclasses.replace(FULFIL, bulk=None)
    assert decide_bulk_fulfil(unknown, FulfilRules()).error == FspiopError(
        "3210", "Bulk transfer ID not found - Provided Bulk Transfer ID was not found on the server."
    )
    unreadable = decide_bulk_fulfil(dataclasses.replace(FULFIL, request=None), FulfilRules())
    assert unreadable.error is not None
    assert unreadable.error.code == "2001"


@pytest.mark.parametrize(
    ("changes", "outcome", "expected"),
    [
        ({}, FulfilOutcome.VALID, [("f" * 43, None, False), (None, "5104", True)]),
        ({"answers": [NO]}, FulfilOutcome.VALID, [(None, "5000", False), (None, "5104", True)]),
        ({"answers": []}, FulfilOutcome.VALID, [(None, "5000", False)] * 2),
        (
            {"answers": [ItemAnswer(A, "f" * 43, NO.error)]},
            FulfilOutcome.VALID,
            [(None, "5104", True), (None, "5000", False)],
        ),
        ({"state": "REJECTED"}, FulfilOutcome.REJECTED, [(None, "5100", True), (None, "5104", True)]),
        ({"state": None, "error": FspiopError("5100", "All")}, FulfilOutcome.ERROR, [(None, "5100", True)] * 2),
        ({"completed_ms": NOW + 9_999}, FulfilOutcome.INVALID, [(None, "3100", False)] * 2),
        ({"state": "RECEIVED"}, FulfilOutcome.VALID, [("f" * 43, None, False), (None, "5104", True)]),
    ],
)
def test_every_forwarded_item_gets_an_answer(
    changes: Mapping[str, Any], outcome: FulfilOutcome, expected: list[tuple[str | None, str | None, bool]]
) -> None:
    """BULK-32, D11, D22, D23: in the order of the request, whatever the payee left out or said twice over."""
    decision = decide_bulk_fulfil(fulfil_with(**changes), FulfilRules())
    assert (decision.verdict, decision.outcome) == (FulfilVerdict.ACCEPT, outcome)
    assert [member.transfer_key for member in decision.members] == [11, 12]
    told = [(member.fulfilment, member.error and member.error.code, member.refused) for member in decision.members]
    assert told == expected


@pytest.mark.parametrize(
    ("source", "state", "accepted", "view", "role"),
    [
        ("payer", BulkState.PENDING_PREPARE, False, View.STATE, Role.PAYER),
        ("payer", BulkState.ACCEPTED, True, View.ITEMS, Role.PAYER),
        ("payer", BulkState.EXPIRING, False, View.STATE, Role.PAYER),
        ("payer", BulkState.REJECTED, False, View.RESULT, Role.PAYER),
        ("payee", BulkState.ACCEPTED, True, View.ITEMS, Role.PAYEE),
        ("payee", BulkState.EXPIRED, True, View.RESULT, Role.PAYEE),
        ("payee", BulkState.EXPIRED, False, View.NOT_FOUND, None),
        ("payee", BulkState.PENDING_PREPARE, False, View.NOT_FOUND, None),
        ("other", BulkState.COMPLETED, True, View.NOT_FOUND, None),
    ],
)
def test_who_is_shown_what(source: str, state: BulkState, *, accepted: bool, view: View, role: Role | None) -> None:
    shown = decide_bulk_get(
        source, BulkToShow("payer", "payee", state, was_accepted=accepted), unread_request_of_source=False
    )
    assert (shown.view, shown.role) == (view, role)


def test_an_unknown_bulk_is_received_for_its_sender_alone() -> None:
    assert decide_bulk_get("payer", None, unread_request_of_source=True).state is BulkState.RECEIVED
    assert decide_bulk_get("payer", None, unread_request_of_source=False).view is View.NOT_FOUND


def test_an_inactive_sender_of_a_fulfil_learns_that_and_nothing_else() -> None:  # D12
    for bulk in (BULK, None):
        decided = decide_bulk_fulfil(fulfil_with(bulk=bulk, source_is_active=False), FulfilRules())
        assert decided.verdict is FulfilVerdict.ANSWER_ERROR
        assert decided.error == FspiopError("3100", "Generic validation error - Participant payee is inactive")
