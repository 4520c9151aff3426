"""Decisions about a transfer, funds and callbacks in full: every field, every limit at its very edge, every text."""

import dataclasses

import pytest

from domain.combinations import (
    ITEM_COMMITTED,
    ITEM_EXPIRED,
    ITEM_FULFIL_INVALID,
    ITEM_INVALID,
    ITEM_NOT_RESERVED,
    ITEM_REFUSED,
    ITEM_RELEASED,
    POSITION_ABORT,
    POSITION_COMMIT,
    POSITION_REJECT,
    POSITION_TIMEOUT,
)
from domain.delivery import (
    ContradictoryNotification,
    FailedAttempt,
    GiveUp,
    RetryLimits,
    TryAgain,
    after_failure,
    delivery_kind,
)
from domain.fspiop_errors import INVALID_FULFILMENT, TRANSFER_EXPIRED, ErrorCode, FspiopError
from domain.fulfil import FulfilStep, TransferAnswer, decide_fulfil
from domain.funds import VALUE_END, FundsAction, FundsRefusal, FundsStep, decide_funds, decide_funds_end
from domain.money import MalformedAmount, parse_amount
from domain.position import OVER_LIMIT, Move, Step, decide_positions
from domain.prepare import PreparedItem, PrepareVerdict, decide_prepare
from domain.states import BulkState, FundsState, IllegalTransition, ItemState, TransferState, require_step
from domain.timeout import DueMessage, ExpiryStep, OpenItem, TimeoutDecision, decide_timeout, due_message
from tests.domain.test_funds import IN, OPEN, OUT
from tests.domain.test_position import account
from tests.domain.test_position import transfer as position_transfer
from tests.domain.test_requests import NOW
from tests.domain.test_transfers import ACCOUNTS, CONDITION, GOOD, ITEM, NO_FUNDS, PREIMAGE, RESERVED
from tests.domain.test_transfers import FACTS as PREPARE_FACTS

REFUSED = FspiopError("5104", "No")


def invalid(detail: str) -> FspiopError:
    return FspiopError("3100", f"Generic validation error - {detail}")


def test_prepare_in_full() -> None:  # BULK-62, BULK-63
    assert decide_prepare([ITEM], PREPARE_FACTS) == [
        PreparedItem(ITEM, PrepareVerdict.VALID, None, 105_000, 1, 2, CONDITION)
    ]
    nothing = dataclasses.replace(ITEM, amount="1.00", condition="x")
    bare = dataclasses.replace(PREPARE_FACTS, accounts={})
    error = invalid("transferAmount is not an amount of at most 18 digits and 4 decimals")
    assert decide_prepare([nothing], bare) == [PreparedItem(nothing, PrepareVerdict.INVALID, error)]
    # An amount of nothing is an amount (the edge refuses it, FSPIOP does not).
    zero = dataclasses.replace(ITEM, amount="0", condition="x")
    assert decide_prepare([zero], PREPARE_FACTS) == [
        PreparedItem(zero, PrepareVerdict.INVALID, invalid("condition is not 32 bytes"), 0, 1, 2)
    ]
    for used, verdict, why in [
        ((99, b"h"), PrepareVerdict.DUPLICATE, invalid("Individual transfer prepare duplicate")),
        ((99, b"other"), PrepareVerdict.MODIFIED, FspiopError("3106", "Modified request")),
        ((11, b"h"), PrepareVerdict.REPEAT, None),
    ]:
        facts = dataclasses.replace(PREPARE_FACTS, used={ITEM.transfer_id: used})
        assert decide_prepare([ITEM], facts) == [PreparedItem(ITEM, verdict, why)]
    gone = dataclasses.replace(PREPARE_FACTS, item_states={})
    assert decide_prepare([ITEM], gone) == [PreparedItem(ITEM, PrepareVerdict.REPEAT)]


def test_a_refused_item_keeps_its_id_used_and_a_duplicate_does_not() -> None:
    refused = dataclasses.replace(ITEM, amount="x")
    again = dataclasses.replace(ITEM, transfer_key=12, hash=b"other")
    third = dataclasses.replace(ITEM, transfer_key=13)
    facts = dataclasses.replace(PREPARE_FACTS, item_states=dict.fromkeys((11, 12, 13), ItemState.RECEIVED))
    assert [one.verdict for one in decide_prepare([refused, again, third], facts)] == [
        PrepareVerdict.INVALID,
        PrepareVerdict.MODIFIED,
        PrepareVerdict.DUPLICATE,
    ]
    assert facts.used == {}, "facts are not touched"
    assert facts.accounts == ACCOUNTS


def test_fulfil_in_full() -> None:
    other = TransferAnswer(12, None, REFUSED, refused=True)
    unknown = GOOD._replace(transfer_key=99)
    transfers = {11: RESERVED, 12: RESERVED._replace(transfer_key=12)}
    assert decide_fulfil([unknown, GOOD, other, GOOD._replace(fulfilment=None)], transfers, NOW - NOW) == [
        FulfilStep(11, TransferState.RECEIVED_FULFIL, 2, PREIMAGE),
        FulfilStep(12, TransferState.RECEIVED_ERROR, 1, None, REFUSED, True),
    ]
    failed = decide_fulfil([GOOD._replace(fulfilment="x")], transfers, 0)
    assert failed == [FulfilStep(11, TransferState.RECEIVED_ERROR, 1, None, INVALID_FULFILMENT)]


def test_positions_in_full() -> None:  # D3, BULK-127
    """What is given back comes first, whatever stands in between; a request that comes twice counts once."""
    transfers = {
        1: position_transfer(1, 7, TransferState.RECEIVED_FULFIL),
        2: position_transfer(2, 5, TransferState.RECEIVED_ERROR),
        3: position_transfer(3, 3, TransferState.RESERVED_TIMEOUT),
        4: position_transfer(4, 2),
        5: position_transfer(5, 60),
    }
    accounts = {1: account(1, value=20, cover=100, cap=50), 2: account(2, value=1), 3: account(3, value=9)}
    requests = [
        (4, Move.PREPARE),
        (99, Move.PREPARE),
        (1, Move.COMMIT),
        (4, Move.PREPARE),
        (2, Move.ABORT),
        (2, Move.ABORT),
        (2, Move.TIMEOUT),
        (5, Move.PREPARE),
        (3, Move.TIMEOUT),
    ]
    decided = decide_positions(requests, transfers, accounts, 0)
    prepared = TransferState.RECEIVED_PREPARE
    assert decided.steps == [
        Step(1, Move.COMMIT, TransferState.RECEIVED_FULFIL, TransferState.COMMITTED, 2, -6),
        Step(2, Move.ABORT, TransferState.RECEIVED_ERROR, TransferState.ABORTED_ERROR, 1, 15),
        Step(3, Move.TIMEOUT, TransferState.RESERVED_TIMEOUT, TransferState.EXPIRED_RESERVED, 1, 12),
        Step(4, Move.PREPARE, prepared, TransferState.RESERVED, 1, 14),
        Step(5, Move.PREPARE, prepared, TransferState.ABORTED_REJECTED, 1, None, OVER_LIMIT),
    ]
    assert decided.positions == {1: 14, 2: -6}, "an account that did not change is not written"


def test_a_move_of_a_transfer_without_an_account_is_a_bug() -> None:
    broken = {1: position_transfer(1, 7, payer_account=None)}
    with pytest.raises(AssertionError, match=r"^only an INVALID transfer lacks an account, and no move is made of it$"):
        decide_positions([(1, Move.PREPARE)], broken, {1: account(1)}, 0)


def test_timeout_in_full() -> None:  # D16, D17, BULK-127
    decided = decide_timeout(
        [
            OpenItem(1, ItemState.RECEIVED, None),
            OpenItem(2, ItemState.RECEIVED, TransferState.RECEIVED_PREPARE),
            OpenItem(3, ItemState.ACCEPTED, TransferState.RESERVED),
            OpenItem(4, ItemState.ACCEPTED, TransferState.RECEIVED_FULFIL),
            OpenItem(5, ItemState.RECEIVED, TransferState.INVALID, "bulk-prepare", NO_FUNDS),
        ]
    )
    assert decided == TimeoutDecision(
        [
            ExpiryStep(2, TransferState.RECEIVED_PREPARE, TransferState.EXPIRED_PREPARED),
            ExpiryStep(3, TransferState.RESERVED, TransferState.RESERVED_TIMEOUT),
        ],
        [
            DueMessage(1, ITEM_EXPIRED, TRANSFER_EXPIRED),
            DueMessage(2, ITEM_EXPIRED, TRANSFER_EXPIRED),
            DueMessage(3, POSITION_TIMEOUT),
            DueMessage(4, POSITION_COMMIT),
            DueMessage(5, ITEM_INVALID, NO_FUNDS),
        ],
    )


@pytest.mark.parametrize(
    ("state", "reason", "message"),
    [
        (TransferState.RECEIVED_FULFIL, "bulk-commit", DueMessage(3, POSITION_COMMIT)),
        (TransferState.RECEIVED_ERROR, "reject", DueMessage(3, POSITION_REJECT)),
        (TransferState.RECEIVED_ERROR, "bulk-abort", DueMessage(3, POSITION_ABORT)),
        (TransferState.RESERVED_TIMEOUT, "-", DueMessage(3, POSITION_TIMEOUT)),
        (TransferState.INVALID, "-", DueMessage(3, ITEM_INVALID, REFUSED)),
        (TransferState.ABORTED_REJECTED, "-", DueMessage(3, ITEM_NOT_RESERVED, REFUSED)),
        (TransferState.EXPIRED_PREPARED, "-", DueMessage(3, ITEM_EXPIRED, TRANSFER_EXPIRED)),
        (TransferState.EXPIRED_RESERVED, "-", DueMessage(3, ITEM_RELEASED, TRANSFER_EXPIRED)),
        (TransferState.COMMITTED, "-", DueMessage(3, ITEM_COMMITTED)),
        (TransferState.ABORTED_ERROR, "reject", DueMessage(3, ITEM_REFUSED, REFUSED)),
        (TransferState.ABORTED_ERROR, "bulk-abort", DueMessage(3, ITEM_FULFIL_INVALID, REFUSED)),
    ],
)
def test_the_message_that_a_state_calls_for(state: TransferState, reason: str, message: DueMessage) -> None:  # D17
    assert due_message(3, state, reason, REFUSED) == message


def test_a_transfer_that_may_expire_has_no_message_of_its_own() -> None:
    with pytest.raises(
        AssertionError, match=r"^a transfer in RESERVED waits for position or for the payee, and may expire$"
    ):
        due_message(1, TransferState.RESERVED, None, None)
    with pytest.raises(AssertionError):
        decide_timeout([OpenItem(1, ItemState.COMPLETED, TransferState.COMMITTED)])


# states, money, funds, delivery


def test_an_illegal_step_is_named() -> None:  # BULK-135
    with pytest.raises(IllegalTransition, match=r"^BulkState: COMPLETED may not become REJECTED$"):
        require_step(BulkState.COMPLETED, BulkState.REJECTED)
    with pytest.raises(IllegalTransition, match=r"^ItemState: nowhere may not become COMPLETED$"):
        require_step("nowhere", ItemState.COMPLETED)


def test_a_malformed_amount_is_named_as_far_as_it_fits() -> None:
    with pytest.raises(MalformedAmount, match=rf"^'{'x' * 40}' is not an FSPIOP Amount$"):
        parse_amount("x" * 50)


def test_why_funds_do_not_move() -> None:
    unsettled = dataclasses.replace(OPEN, position_value=-30)
    shut, closed = (dataclasses.replace(OPEN, **{f"{what}_is_active": False}) for what in ("participant", "settlement"))
    code = ErrorCode.VALIDATION_ERROR
    for decided, refusal in [
        (decide_funds(OUT, IN, OPEN), FundsRefusal(ErrorCode.MODIFIED_REQUEST, "")),
        (decide_funds(IN, None, shut), FundsRefusal(code, "Participant is currently set inactive")),
        (decide_funds(IN, None, closed), FundsRefusal(code, "Account is currently set inactive")),
        (
            decide_funds(dataclasses.replace(OUT, amount=75), None, OPEN),
            FundsRefusal(ErrorCode.PAYER_INSUFFICIENT_LIQUIDITY, "the cover left, 0.0025, would be below 0.0035"),
        ),
        (
            decide_funds(dataclasses.replace(OUT, amount=101), None, unsettled),
            FundsRefusal(ErrorCode.PAYER_INSUFFICIENT_LIQUIDITY, "the cover left, -0.0001, would be below 0"),
        ),
        (
            decide_funds_end(FundsAction.OUT_COMMIT, 1, FundsState.ABORTED, OPEN),
            FundsRefusal(code, "the transfer is ABORTED and can no longer be COMMITTED"),
        ),
    ]:
        assert decided == refusal


@pytest.mark.parametrize("amount", [VALUE_END - 101, VALUE_END - 100])
def test_an_account_holds_18_digits_and_no_more(amount: int) -> None:  # D26
    decided = decide_funds(dataclasses.replace(IN, amount=amount), None, OPEN)
    if amount + 100 < VALUE_END:
        assert decided == FundsStep("-", FundsState.COMMITTED, -100 - amount, 100 + amount)
    else:
        text = "an account would need more than 18 digits before the point"
        assert decided == FundsRefusal(ErrorCode.VALIDATION_ERROR, text)


def test_why_a_callback_is_given_up() -> None:
    limits = RetryLimits(backoff_first_ms=100, backoff_max_ms=100, attempts_max=3, age_max_ms=1_000)
    for failed, decision in [
        (FailedAttempt(2, 900, None), TryAgain(100)),
        (FailedAttempt(2, 901, None), GiveUp("gave up after 0.0 hours")),
        (FailedAttempt(2, 0, 101), TryAgain(100)),
        (FailedAttempt(2, 0, 100), GiveUp("gave up: the transfer expires before the next attempt")),
        (FailedAttempt(3, 0, 100), GiveUp("gave up after 3 attempts")),
    ]:
        assert after_failure(limits, failed, 1.0) == decision


def test_the_smallest_limits_make_sense_and_smaller_ones_do_not() -> None:
    RetryLimits(backoff_first_ms=1, backoff_max_ms=1, attempts_max=1, age_max_ms=0)
    text = "^backoff_first_ms ≤ backoff_max_ms, attempts_max and age_max_ms must be positive$"
    for wrong in ({"backoff_first_ms": 0}, {"attempts_max": 0}, {"age_max_ms": -1}, {"backoff_max_ms": 499}):
        with pytest.raises(ValueError, match=text):
            RetryLimits(**wrong)


def test_a_notification_that_contradicts_itself_says_how() -> None:
    for is_forward, callback, answers, text in [
        (False, "DELETE", False, "callback DELETE is none of POST, PUT, PUT_ERROR, PATCH"),
        (False, "POST", False, "a forward is a POST, and nothing else is"),
        (True, "PUT", False, "a forward is a POST, and nothing else is"),
        (True, "POST", True, "a forward answers no request of its receiver"),
        (False, "PATCH", False, "there is no PATCH of bulkTransfers"),
    ]:
        with pytest.raises(ContradictoryNotification, match=f"^{text}$"):
            delivery_kind(is_forward=is_forward, callback=callback, answers_request=answers)
