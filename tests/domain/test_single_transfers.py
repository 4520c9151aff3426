"""A single transfer's decisions: who may send it, what its answer does, who is told what, who may see it."""

import base64
import hashlib
from typing import Any, NamedTuple

import pytest

from domain.combinations import SINGLE_ABORT, SINGLE_COMBINATIONS, SINGLE_COMMIT, SINGLE_RESERVE, require_known
from domain.delivery import Callback
from domain.fspiop_errors import (
    INVALID_FULFILMENT,
    MODIFIED_REQUEST,
    NOT_A_PARTY,
    SOURCE_IS_NOT_PAYER,
    TRANSFER_EXPIRED,
    TRANSFER_NOT_FOUND,
    FspiopError,
)
from domain.identifiers import bulk_key_of, is_single, single_key, transfer_key
from domain.prepare import AccountFact
from domain.single_fulfil import AnswerVerdict, SingleFulfilFacts, decide_single_fulfil
from domain.single_prepare import KnownTransfer, SinglePrepareFacts, SingleVerdict, decide_single_prepare
from domain.single_transfers import SingleTransfer, position_request, tellings
from domain.states import TRANSFER_TRANSITIONS, FundsState, TransferState
from domain.transfer_get import FundsToShow, TransferToShow, decide_transfer_get

PAYER, PAYEE, STRANGER = "payerfsp", "payeefsp", "strangerfsp"


def text_of(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


PREIMAGE = hashlib.sha256(b"the secret").digest()
FULFILMENT, CONDITION = text_of(PREIMAGE), text_of(hashlib.sha256(PREIMAGE).digest())

NOW_MS = 1_800_000_000_000
HORIZON_MS = 1_000_000
HUB = "Hub"
ID = bytes(16)


class Request(NamedTuple):
    """A POST /transfers as its message says it."""

    transfer_id: bytes = ID
    request_id: bytes = b"r" * 16
    source: str = PAYER
    destination: str | None = None
    received_at_ms: int = NOW_MS
    payer_fsp: str = PAYER
    payee_fsp: str = PAYEE
    currency: str = "USD"
    amount: str = "10"
    condition: str = CONDITION
    expiration_ms: int = NOW_MS + 10_000
    hash: bytes = b"h" * 32


def prepare_facts(**changes: Any) -> SinglePrepareFacts:
    facts: dict[str, Any] = {
        "participants": {PAYER: True, PAYEE: True, STRANGER: True, HUB: True},
        "known": {},
        "accounts": {(PAYER, "USD"): AccountFact(1, True), (PAYEE, "USD"): AccountFact(2, True)},
        "hub_name": HUB,
        "now_ms": NOW_MS,
    }
    return SinglePrepareFacts(**facts | changes)


def prepared(request: Request, **changes: Any) -> tuple[SingleVerdict, FspiopError | None]:
    [one] = decide_single_prepare([request], prepare_facts(**changes), HORIZON_MS)
    assert one.request is request
    assert (one.terms is not None) is (one.verdict in (SingleVerdict.VALID, SingleVerdict.INVALID))
    return one.verdict, one.error


def test_a_good_transfer_is_valid_with_both_its_accounts() -> None:
    [one] = decide_single_prepare([Request()], prepare_facts(), HORIZON_MS)
    assert (one.verdict, one.error) == (SingleVerdict.VALID, None)
    assert one.terms is not None
    assert (one.terms.amount, one.terms.payer_account, one.terms.payee_account) == (100_000, 1, 2)


@pytest.mark.parametrize("source", ["unknownfsp", HUB])
def test_nobody_is_answered_who_is_no_fsp(source: str) -> None:
    assert prepared(Request(source=source, payer_fsp=source)) == (SingleVerdict.IGNORE, None)


def test_a_stranger_is_refused_before_anything_is_looked_at() -> None:  # BULK-136
    known = {ID: KnownTransfer(b"h" * 32, PAYER, b"r" * 16, True)}
    assert prepared(Request(source=STRANGER), known=known) == (SingleVerdict.REFUSE, SOURCE_IS_NOT_PAYER)


@pytest.mark.parametrize(
    ("before", "verdict"),
    [
        (KnownTransfer(b"h" * 32, PAYER, b"r" * 16, True), SingleVerdict.IGNORE),
        (KnownTransfer(b"h" * 32, PAYER, b"o" * 16, True), SingleVerdict.RESEND),
        (KnownTransfer(b"h" * 32, PAYER, b"o" * 16, False), SingleVerdict.IGNORE),
        (KnownTransfer(b"x" * 32, PAYER, b"o" * 16, True), SingleVerdict.REFUSE),
        (KnownTransfer(b"h" * 32, STRANGER, b"o" * 16, True), SingleVerdict.REFUSE),
        (KnownTransfer(b"h" * 32, None, None, False), SingleVerdict.REFUSE),
    ],
)
def test_a_transfer_id_that_was_seen_before(before: KnownTransfer, verdict: SingleVerdict) -> None:  # BULK-123
    error = MODIFIED_REQUEST if verdict is SingleVerdict.REFUSE else None
    assert prepared(Request(), known={ID: before}) == (verdict, error)


def test_of_two_requests_with_one_id_in_a_batch_the_first_has_it() -> None:
    other = Request(request_id=b"s" * 16, hash=b"x" * 32)
    again = Request(request_id=b"t" * 16)
    decided = decide_single_prepare([Request(), other, again], prepare_facts(), HORIZON_MS)
    assert [one.verdict for one in decided] == [SingleVerdict.VALID, SingleVerdict.REFUSE, SingleVerdict.IGNORE]
    invalid = Request(amount="0.00001")
    decided = decide_single_prepare([invalid, invalid._replace(request_id=b"t" * 16)], prepare_facts(), HORIZON_MS)
    assert [one.verdict for one in decided] == [SingleVerdict.INVALID, SingleVerdict.RESEND]
    # The very same request once more is a repeat of the record, not of the sender.
    decided = decide_single_prepare([invalid, invalid], prepare_facts(), HORIZON_MS)
    assert [one.verdict for one in decided] == [SingleVerdict.INVALID, SingleVerdict.IGNORE]


@pytest.mark.parametrize(
    ("change", "code", "detail"),
    [
        ({"expiration_ms": NOW_MS}, "3100", "expiration is not in the future"),
        ({"expiration_ms": NOW_MS + HORIZON_MS + 1}, "3100", "expiration is more than 0 days ahead"),
        ({"payee_fsp": PAYER}, "3100", "payerFsp and payeeFsp must differ"),
        ({"payee_fsp": "nobody"}, "3203", "Participant nobody not found"),
        ({"payee_fsp": HUB}, "3203", "Participant Hub not found"),
        ({"destination": "nobody"}, "3203", "Participant nobody not found"),
        ({"amount": "1.00001"}, "3100", "transferAmount is not an amount of at most 18 digits and 4 decimals"),
        ({"currency": "EUR"}, "3100", f"Participant {PAYER} EUR account not found"),
        ({"condition": "AAAA"}, "3100", "condition is not 32 bytes"),
    ],
)
def test_what_cannot_stand_is_invalid_with_its_reason(change: dict[str, Any], code: str, detail: str) -> None:
    verdict, error = prepared(Request(**change))
    assert verdict is SingleVerdict.INVALID
    assert error is not None
    assert (error.code, error.description.partition(" - ")[2]) == (code, detail)


def test_a_destination_that_is_the_hub_says_nothing_new() -> None:
    assert prepared(Request(destination=HUB))[0] is SingleVerdict.VALID
    assert prepared(Request(destination=PAYEE))[0] is SingleVerdict.VALID


def test_an_expiration_at_the_horizon_is_allowed_and_one_that_passed_since_is_3303() -> None:
    assert prepared(Request(expiration_ms=NOW_MS + HORIZON_MS))[0] is SingleVerdict.VALID
    late = prepared(Request(received_at_ms=NOW_MS - 1, expiration_ms=NOW_MS))
    assert late == (SingleVerdict.INVALID, TRANSFER_EXPIRED)


def test_inactive_parties_are_refused_each_with_its_code() -> None:
    verdict, error = prepared(Request(), participants={PAYER: False, PAYEE: True})
    assert (verdict, error) == (
        SingleVerdict.INVALID,
        FspiopError("3202", f"Payer FSP ID not found - Participant {PAYER} is inactive"),
    )
    _, error = prepared(Request(), participants={PAYER: True, PAYEE: False})
    assert error == FspiopError("3100", f"Generic validation error - Participant {PAYEE} is inactive")
    accounts = {(PAYER, "USD"): AccountFact(1, True), (PAYEE, "USD"): AccountFact(2, False)}
    _, error = prepared(Request(), accounts=accounts)
    assert error == FspiopError("3100", f"Generic validation error - Participant {PAYEE} USD account is inactive")


# --- The payee's answer ----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A PUT /transfers/{ID} or its /error as its message says it."""

    action: str = SINGLE_COMMIT.action
    transfer_id: bytes = ID
    request_id: bytes = b"a" * 16
    source: str = PAYEE
    fulfilment: str | None = FULFILMENT
    error_code: str | None = None
    error_description: str | None = None
    hash: bytes = b"f" * 32


def single(state: TransferState = TransferState.RESERVED, reason: str = "prepare", **changes: Any) -> SingleTransfer:
    values: dict[str, Any] = {
        "transfer_key": single_key(7),
        "transfer_id": ID,
        "hash": b"h" * 32,
        "payer_fsp": PAYER,
        "payee_fsp": PAYEE,
        "payer_account": 1,
        "payee_account": 2,
        "condition": hashlib.sha256(PREIMAGE).digest(),
        "expiration_ms": NOW_MS + 1,
        "request_id": b"r" * 16,
        "state": state,
        "reason": reason,
        "error": None,
        "fulfil_request_id": None,
        "fulfil_hash": None,
        "completed_timestamp": None,
        "fulfilment": None,
    }
    return SingleTransfer(**values | changes)


def answered(
    answer: Answer, one: SingleTransfer | None, now_ms: int = NOW_MS
) -> tuple[AnswerVerdict, TransferState | None, str, FspiopError | None]:
    singles = {} if one is None else {ID: one}
    facts = SingleFulfilFacts({PAYER: True, PAYEE: True, STRANGER: True, "inactivefsp": False}, singles, now_ms)
    [judged] = decide_single_fulfil([answer], facts)
    assert judged.answer is answer
    is_about_it = judged.verdict in (AnswerVerdict.ACCEPT, AnswerVerdict.RESEND)
    assert judged.single is one if is_about_it else judged.to_state is None
    assert judged.fulfilment == (PREIMAGE if judged.to_state is TransferState.RECEIVED_FULFIL else None)
    return judged.verdict, judged.to_state, judged.reason, judged.error


ABORT = Answer(action=SINGLE_ABORT.action, fulfilment=None, error_code="5104", error_description="no")


@pytest.mark.parametrize(
    ("answer", "to_state", "reason", "error"),
    [
        (Answer(), TransferState.RECEIVED_FULFIL, "commit", None),
        (Answer(action=SINGLE_RESERVE.action), TransferState.RECEIVED_FULFIL, "reserve", None),
        (Answer(fulfilment="A" * 43), TransferState.RECEIVED_ERROR, "abort-validation", INVALID_FULFILMENT),
        (Answer(fulfilment=None), TransferState.RECEIVED_ERROR, "abort-validation", INVALID_FULFILMENT),
        (
            Answer(action=SINGLE_RESERVE.action, fulfilment=None),
            TransferState.RECEIVED_ERROR,
            "reserved-aborted",
            INVALID_FULFILMENT,
        ),
        (ABORT, TransferState.RECEIVED_ERROR, "abort", FspiopError("5104", "no")),
    ],
)
def test_an_answer_in_time_is_accepted(
    answer: Answer, to_state: TransferState, reason: str, error: FspiopError | None
) -> None:
    assert answered(answer, single()) == (AnswerVerdict.ACCEPT, to_state, reason, error)
    # What it leads to is a step that the machine has, and a request that position knows.
    assert to_state in TRANSFER_TRANSITIONS[TransferState.RESERVED]
    assert position_request(to_state, reason).action == reason


@pytest.mark.parametrize("source", [PAYER, STRANGER])
def test_an_answer_of_anybody_but_the_payee_is_3208(source: str) -> None:  # D12
    refused = (AnswerVerdict.REFUSE, None, "", TRANSFER_NOT_FOUND)
    assert answered(Answer(source=source), single()) == refused
    assert answered(Answer(source=source), None) == refused


def test_a_sender_that_is_no_participant_is_not_answered() -> None:
    assert answered(Answer(source="unknownfsp"), single())[0] is AnswerVerdict.IGNORE


def test_a_sender_that_is_inactive_learns_that_and_nothing_else() -> None:
    error = FspiopError("3100", "Generic validation error - Participant inactivefsp is inactive")
    for one in (None, single(), single(payee_fsp="inactivefsp")):
        assert answered(Answer(source="inactivefsp"), one) == (AnswerVerdict.REFUSE, None, "", error)


@pytest.mark.parametrize("state", list(TransferState))
def test_an_answer_has_an_effect_in_one_state_only(state: TransferState) -> None:  # BULK-135
    expected = {
        TransferState.RESERVED: AnswerVerdict.ACCEPT,
        TransferState.RECEIVED_PREPARE: AnswerVerdict.REFUSE,
        TransferState.INVALID: AnswerVerdict.REFUSE,
        TransferState.ABORTED_REJECTED: AnswerVerdict.REFUSE,
        TransferState.EXPIRED_PREPARED: AnswerVerdict.REFUSE,
    }
    assert answered(Answer(), single(state))[0] is expected.get(state, AnswerVerdict.IGNORE)


def test_an_answer_after_the_expiration_is_left_to_the_timeout() -> None:
    assert answered(Answer(), single(), now_ms=NOW_MS + 1)[0] is AnswerVerdict.IGNORE
    assert answered(Answer(), single(), now_ms=NOW_MS)[0] is AnswerVerdict.ACCEPT


@pytest.mark.parametrize(
    ("request_id", "hash_", "state", "verdict"),
    [
        (b"a", b"f", TransferState.COMMITTED, AnswerVerdict.IGNORE),
        (b"b", b"f", TransferState.COMMITTED, AnswerVerdict.RESEND),
        (b"b", b"f", TransferState.RECEIVED_FULFIL, AnswerVerdict.IGNORE),
        (b"b", b"x", TransferState.RECEIVED_FULFIL, AnswerVerdict.REFUSE),
        (b"b", b"x", TransferState.COMMITTED, AnswerVerdict.REFUSE),
    ],
)
def test_an_answer_that_was_given_before(  # BULK-124
    request_id: bytes, hash_: bytes, state: TransferState, verdict: AnswerVerdict
) -> None:
    before = single(state, "commit", fulfil_request_id=b"a" * 16, fulfil_hash=b"f" * 32)
    found = answered(Answer(request_id=request_id * 16, hash=hash_ * 32), before)
    assert found[0] is verdict
    assert found[3] == (MODIFIED_REQUEST if verdict is AnswerVerdict.REFUSE else None)


def test_of_two_answers_in_a_batch_the_first_counts() -> None:
    facts = SingleFulfilFacts({PAYEE: True}, {ID: single()}, NOW_MS)
    other = ABORT._replace(request_id=b"b" * 16, hash=b"x" * 32)
    judged = decide_single_fulfil([Answer(), other, Answer(request_id=b"c" * 16)], facts)
    assert [one.verdict for one in judged] == [AnswerVerdict.ACCEPT, AnswerVerdict.REFUSE, AnswerVerdict.IGNORE]


# --- Who is told what ------------------------------------------------------------------------------------------------

ERROR = FspiopError("3100", "why")
P, U, E, X = Callback.POST, Callback.PUT, Callback.PUT_ERROR, Callback.PATCH


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (TransferState.RECEIVED_PREPARE, "prepare", []),
        (TransferState.RESERVED, "prepare", [(PAYEE, P, b"r", None)]),
        (TransferState.INVALID, "prepare", [(PAYER, E, None, ERROR)]),
        (TransferState.ABORTED_REJECTED, "prepare", [(PAYER, E, None, ERROR)]),
        (TransferState.EXPIRED_PREPARED, "timeout-received", [(PAYER, E, None, TRANSFER_EXPIRED)]),
        (TransferState.RECEIVED_FULFIL, "commit", []),
        (TransferState.RECEIVED_ERROR, "abort", []),
        (TransferState.RESERVED_TIMEOUT, "timeout-reserved", []),
        (TransferState.COMMITTED, "commit", [(PAYER, U, b"a", None)]),
        (TransferState.COMMITTED, "reserve", [(PAYER, U, None, None), (PAYEE, X, None, None)]),
        (TransferState.ABORTED_ERROR, "abort", [(PAYER, E, b"a", None)]),
        (TransferState.ABORTED_ERROR, "abort-validation", [(PAYER, E, None, ERROR)]),
        (TransferState.ABORTED_ERROR, "reserved-aborted", [(PAYER, E, None, ERROR), (PAYEE, X, None, ERROR)]),
        (
            TransferState.EXPIRED_RESERVED,
            "timeout-reserved",
            [(PAYER, E, None, TRANSFER_EXPIRED), (PAYEE, E, None, TRANSFER_EXPIRED)],
        ),
    ],
)
def test_every_state_tells_whom_it_should(state: TransferState, reason: str, expected: list[Any]) -> None:
    one = single(state, reason, error=ERROR, fulfil_request_id=b"a" * 16)
    told = tellings(one)
    assert [(t.to, t.callback, t.sent_request_id and t.sent_request_id[:1], t.error) for t in told] == expected
    for telling in told:
        combination = telling.combination
        require_known(combination.topic, combination.type, combination.action, combination.status)
        assert telling.not_after_ms == (one.expiration_ms if telling.callback is P else None)


def test_only_position_leads_on_from_where_money_is_on_its_way() -> None:
    asked = {
        (TransferState.RECEIVED_PREPARE, "prepare"): "prepare",
        (TransferState.RECEIVED_FULFIL, "reserve"): "reserve",
        (TransferState.RECEIVED_ERROR, "abort"): "abort",
        (TransferState.RESERVED_TIMEOUT, "timeout-reserved"): "timeout-reserved",
    }
    assert {key: position_request(*key).action for key in asked} == asked
    with pytest.raises(AssertionError, match="COMMITTED"):
        position_request(TransferState.COMMITTED, "commit")


def test_the_combinations_of_single_transfers_are_all_different() -> None:  # BULK-82
    keys = {(one.topic, one.type, one.action, one.status) for one in SINGLE_COMBINATIONS}
    # SINGLE_PREPARE_REFUSED and SINGLE_NOT_RESERVED read alike, and mean alike: the payer is told why.
    assert len(keys) == len(SINGLE_COMBINATIONS) - 1


def test_a_single_transfer_stands_where_no_item_stands() -> None:
    assert is_single(single_key(12))
    assert not is_single(transfer_key(12, 1))
    assert bulk_key_of(single_key(12)) == 12


# --- GET -------------------------------------------------------------------------------------------------------------


def shown(source: str, state: TransferState, *, was_forwarded: bool = True) -> Any:
    transfer = TransferToShow(PAYER, PAYEE, state, ERROR, b"f" * 32, "then", was_forwarded)
    return decide_transfer_get(source, transfer, None, unread_request_of_source=False)


def test_the_parties_see_the_state_and_the_secret_only_of_a_committed_transfer() -> None:
    for source in (PAYER, PAYEE):
        committed = shown(source, TransferState.COMMITTED)
        assert committed == (None, "COMMITTED", b"f" * 32, "then", None)
        assert shown(source, TransferState.RECEIVED_FULFIL) == (None, "RESERVED", None, None, None)
        assert shown(source, TransferState.ABORTED_ERROR) == (None, "ABORTED", None, None, ERROR)


def test_a_payee_sees_nothing_of_what_was_never_forwarded_and_a_stranger_nothing_at_all() -> None:
    assert shown(PAYEE, TransferState.INVALID, was_forwarded=False).error == TRANSFER_NOT_FOUND
    assert shown(PAYER, TransferState.INVALID, was_forwarded=False).state == "ABORTED"
    assert shown(STRANGER, TransferState.COMMITTED).error == NOT_A_PARTY


def test_funds_are_shown_to_their_participant_and_an_unread_post_to_its_sender() -> None:
    funds = FundsToShow(PAYER, FundsState.RESERVED)
    assert decide_transfer_get(PAYER, None, funds, unread_request_of_source=False).state == "RESERVED"
    assert decide_transfer_get(PAYEE, None, funds, unread_request_of_source=False).error == TRANSFER_NOT_FOUND
    assert decide_transfer_get(PAYER, None, None, unread_request_of_source=True).state == "RECEIVED"
    assert decide_transfer_get(PAYER, None, None, unread_request_of_source=False).error == TRANSFER_NOT_FOUND
