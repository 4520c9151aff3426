"""The decisions on one transfer: prepare, fulfil and timeout, each check in its order."""

import base64
import dataclasses
import hashlib
from typing import Any

import pytest

from domain.combinations import POSITION_TIMEOUT
from domain.fspiop_errors import INVALID_FULFILMENT, TRANSFER_EXPIRED, FspiopError
from domain.fulfil import TransferAnswer, decide_fulfil
from domain.prepare import (
    AccountFact,
    PrepareFacts,
    PrepareVerdict,
    decide_prepare,
    decode_32_bytes,
)
from domain.states import ItemState, TransferState
from domain.timeout import OpenItem, becomes_expiring, decide_timeout, due_message
from domain.transfers import Transfer
from schemas.messages import TransferPrepare

NOW = 1_000_000
PREIMAGE = bytes(range(32))
CONDITION = hashlib.sha256(PREIMAGE).digest()


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


ITEM = TransferPrepare(
    type="prepare",
    action="bulk-prepare",
    status="success",
    bulk_transfer_id=b"b" * 16,
    transfer_key=11,
    transfer_id=b"t" * 16,
    payer_fsp="payer",
    payee_fsp="payee",
    currency="USD",
    amount="10.5",
    condition=base64url(CONDITION),
    expiration_ms=NOW + 1,
    hash=b"h",
)
ACCOUNTS = {("payer", "USD"): AccountFact(1, is_active=True), ("payee", "USD"): AccountFact(2, is_active=True)}
FACTS = PrepareFacts({11: ItemState.RECEIVED}, {}, ACCOUNTS, NOW)


def prepare(item: TransferPrepare = ITEM, **facts: Any) -> tuple[PrepareVerdict, FspiopError | None]:
    [prepared] = decide_prepare([item], dataclasses.replace(FACTS, **facts))
    return prepared.verdict, prepared.error


def test_a_good_item_is_valid_with_its_legs_and_its_exact_amount() -> None:
    [prepared] = decide_prepare([ITEM], FACTS)
    assert prepared.verdict is PrepareVerdict.VALID
    assert (prepared.amount, prepared.payer_account, prepared.payee_account) == (105_000, 1, 2)
    assert prepared.condition == CONDITION


@pytest.mark.parametrize("state", [None, *[state for state in ItemState if state is not ItemState.RECEIVED]])
def test_an_item_that_no_longer_waits_is_left_alone(state: ItemState | None) -> None:
    states = {} if state is None else {11: state}
    assert prepare(item_states=states, used={ITEM.transfer_id: (99, b"other")}) == (PrepareVerdict.REPEAT, None)


def test_a_transfer_id_that_was_used() -> None:  # BULK-62, BULK-63
    expired = dataclasses.replace(ITEM, expiration_ms=0)
    assert prepare(expired, used={ITEM.transfer_id: (11, b"other")}) == (PrepareVerdict.REPEAT, None)
    verdict, error = prepare(expired, used={ITEM.transfer_id: (99, b"h")})
    assert (verdict, error and error.code) == (PrepareVerdict.DUPLICATE, "3100")
    verdict, error = prepare(expired, used={ITEM.transfer_id: (99, b"other")})
    assert (verdict, error) == (PrepareVerdict.MODIFIED, FspiopError("3106", "Modified request"))


def test_of_two_items_with_one_id_in_a_batch_the_first_has_it() -> None:  # D14
    other = dataclasses.replace(ITEM, transfer_key=12)
    facts = dataclasses.replace(FACTS, item_states={11: ItemState.RECEIVED, 12: ItemState.RECEIVED})
    verdicts = [prepared.verdict for prepared in decide_prepare([ITEM, other, ITEM], facts)]
    assert verdicts == [PrepareVerdict.VALID, PrepareVerdict.DUPLICATE, PrepareVerdict.REPEAT]


CLOSED = AccountFact(1, is_active=False)


@pytest.mark.parametrize(
    ("item", "accounts", "text"),
    [
        ({"expiration_ms": NOW, "amount": "x", "condition": "x"}, {}, "Transfer expired"),
        ({"amount": "1.00", "condition": "x"}, {}, "transferAmount"),
        ({"condition": "x"}, {}, "Participant payer USD account not found"),
        ({"condition": "x"}, {("payer", "USD"): CLOSED}, "Participant payer USD account is inactive"),
        ({"condition": "x"}, {("payer", "USD"): ACCOUNTS["payer", "USD"]}, "Participant payee USD account not found"),
        (
            {"condition": "x"},
            {**ACCOUNTS, ("payee", "USD"): CLOSED},
            "Participant payee USD account is inactive",
        ),
        ({"condition": base64url(bytes(31))}, ACCOUNTS, "condition is not 32 bytes"),
    ],
)
def test_refusals_in_their_order(item: dict[str, Any], accounts: Any, text: str) -> None:
    verdict, error = prepare(dataclasses.replace(ITEM, **item), accounts=accounts)
    assert verdict is PrepareVerdict.INVALID
    assert error is not None
    assert text in error.description


def test_32_bytes_and_nothing_else() -> None:
    assert decode_32_bytes(base64url(PREIMAGE)) == PREIMAGE
    text = base64url(PREIMAGE)
    wrong = ["", "a", base64url(bytes(31)), base64url(bytes(33)), "ä" * 43, text + "=", text + "!", text[:-1] + "!"]
    for one in [*wrong, base64url(bytes(31)) + "="]:
        assert decode_32_bytes(one) is None, one


RESERVED = Transfer(
    transfer_key=11,
    state=TransferState.RESERVED,
    amount=1,
    payer_account=1,
    payee_account=2,
    condition=CONDITION,
    expiration_ms=NOW + 1,
    item_state=ItemState.ACCEPTED,
    reason="bulk-prepare",
    error=None,
)
GOOD = TransferAnswer(11, base64url(PREIMAGE), None, refused=False)


def test_the_fulfilment_of_the_condition_goes_to_the_payees_account() -> None:
    [step] = decide_fulfil([GOOD], {11: RESERVED}, NOW)
    assert (step.to_state, step.account, step.fulfilment) == (TransferState.RECEIVED_FULFIL, 2, PREIMAGE)


@pytest.mark.parametrize("fulfilment", [None, "x", base64url(bytes(32)), base64url(bytes(31))])
def test_a_wrong_or_missing_fulfilment_gives_the_money_back(fulfilment: str | None) -> None:  # D4
    [step] = decide_fulfil([GOOD._replace(fulfilment=fulfilment)], {11: RESERVED}, NOW)
    assert (step.to_state, step.account, step.error) == (TransferState.RECEIVED_ERROR, 1, INVALID_FULFILMENT)
    assert not step.refused


def test_a_refusal_counts_even_beside_a_good_fulfilment() -> None:
    no = FspiopError("5104", "No")
    [step] = decide_fulfil([GOOD._replace(error=no, refused=True)], {11: RESERVED}, NOW)
    assert (step.to_state, step.error, step.refused) == (TransferState.RECEIVED_ERROR, no, True)


def test_late_repeated_and_unknown_answers_have_no_effect() -> None:  # D3, D5
    assert decide_fulfil([GOOD], {}, NOW) == []
    assert decide_fulfil([GOOD], {11: RESERVED}, NOW + 1) == []
    assert len(decide_fulfil([GOOD, GOOD._replace(fulfilment=None)], {11: RESERVED}, NOW)) == 1
    for state in set(TransferState) - {TransferState.RESERVED}:
        assert decide_fulfil([GOOD], {11: RESERVED._replace(state=state)}, NOW) == []


NO_FUNDS = FspiopError("4001", "Payer FSP insufficient liquidity")


@pytest.mark.parametrize(
    ("state", "reason", "error", "number", "action"),
    [
        (None, None, None, 22, "bulk-timeout-received"),
        (TransferState.RECEIVED_FULFIL, "bulk-commit", None, 17, "bulk-commit"),
        (TransferState.RECEIVED_ERROR, "reject", NO_FUNDS, None, "reject"),
        (TransferState.RECEIVED_ERROR, "bulk-abort", NO_FUNDS, None, "bulk-abort"),
        (TransferState.RESERVED_TIMEOUT, "bulk-timeout-reserved", None, 23, "bulk-timeout-reserved"),
        (TransferState.INVALID, "bulk-prepare", NO_FUNDS, 8, "bulk-prepare"),
        (TransferState.ABORTED_REJECTED, "bulk-prepare", NO_FUNDS, 10, "bulk-prepare"),
        (TransferState.EXPIRED_PREPARED, "bulk-timeout-received", None, 22, "bulk-timeout-received"),
        (TransferState.EXPIRED_RESERVED, "bulk-timeout-reserved", None, 24, "bulk-timeout-reserved"),
        (TransferState.COMMITTED, "bulk-commit", None, 11, "bulk-commit"),
        (TransferState.ABORTED_ERROR, "reject", NO_FUNDS, 14, "reject"),
        (TransferState.ABORTED_ERROR, "bulk-abort", NO_FUNDS, 18, "bulk-commit"),
    ],
)
def test_what_is_on_its_way_is_pushed_forward(
    state: TransferState | None, reason: str | None, error: FspiopError | None, number: int | None, action: str
) -> None:  # D17
    decision = decide_timeout([OpenItem(11, ItemState.ACCEPTED, state, reason, error)])
    assert decision.steps == []
    [message] = decision.messages
    assert (message.combination.number, message.combination.action) == (number, action)
    if error is not None and message.combination.type == "bulk-processing":
        assert message.error == error


def test_what_only_waits_expires() -> None:  # D16, BULK-79, BULK-80
    decision = decide_timeout(
        [
            OpenItem(11, ItemState.RECEIVED, TransferState.RECEIVED_PREPARE),
            OpenItem(12, ItemState.ACCEPTED, TransferState.RESERVED),
        ]
    )
    assert [(step.transfer_key, step.to_state) for step in decision.steps] == [
        (11, TransferState.EXPIRED_PREPARED),
        (12, TransferState.RESERVED_TIMEOUT),
    ]
    first, second = decision.messages
    assert (first.combination.number, first.error) == (22, TRANSFER_EXPIRED)
    assert second.combination == POSITION_TIMEOUT


@pytest.mark.parametrize("state", [TransferState.RECEIVED_PREPARE, TransferState.RESERVED])
def test_a_waiting_transfer_has_no_message_of_its_own(state: TransferState) -> None:
    with pytest.raises(AssertionError):
        due_message(11, state, None, None)


def test_which_bulks_become_expiring() -> None:
    from domain.states import BulkState

    assert {state for state in BulkState if becomes_expiring(state)} == {
        BulkState.PENDING_PREPARE,
        BulkState.ACCEPTED,
        BulkState.PROCESSING,
        BulkState.PENDING_FULFIL,
    }
