"""What is decided about one message of a batch does not depend on the others that stand beside it."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.fulfil import decide_fulfil
from domain.prepare import AccountFact, PrepareFacts, decide_prepare
from domain.states import ItemState, TransferState
from domain.timeout import OpenItem, decide_timeout
from tests.domain.test_transfers import ACCOUNTS, GOOD, ITEM, NO_FUNDS, NOW, RESERVED

FAULTS: list[dict[str, Any]] = [
    {},
    {"expiration_ms": NOW},
    {"amount": "1.00"},
    {"currency": "EUR"},
    {"payer_fsp": "closed"},
    {"payee_fsp": "ghost"},
    {"condition": "x"},
    {"transfer_id": b"used" * 4, "hash": b"h"},
    {"transfer_id": b"used" * 4, "hash": b"other"},
]


@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_each_item_is_refused_for_its_own_reason(faults: list[dict[str, Any]], order: Any) -> None:
    """D14: in Mojaloop the reasons of messages that are checked at once stand in one shared list."""
    items = [
        dataclasses.replace(ITEM, **{"transfer_key": key, "transfer_id": key.to_bytes(16, "big"), **fault})
        for key, fault in enumerate(faults, 1)
    ]
    facts = PrepareFacts(
        dict.fromkeys(range(1, len(items) + 1), ItemState.RECEIVED),
        {b"used" * 4: (99_999, b"h")},
        {**ACCOUNTS, ("closed", "USD"): AccountFact(3, is_active=False)},
        NOW,
    )
    alone = {item.transfer_key: decide_prepare([item], facts)[0] for item in items}
    order.shuffle(items)
    assert decide_prepare(items, facts) == [alone[item.transfer_key] for item in items]


@given(st.lists(st.sampled_from(["good", "wrong", "refused", "late"]), min_size=1, max_size=12))
def test_each_answer_has_its_own_end(kinds: list[str]) -> None:  # D14
    transfers = {
        key: RESERVED._replace(transfer_key=key, expiration_ms=NOW if kind == "late" else NOW + 1)
        for key, kind in enumerate(kinds, 1)
    }
    changes: dict[str, dict[str, Any]] = {"wrong": {"fulfilment": "x"}, "refused": {"error": NO_FUNDS, "refused": True}}
    answers = [GOOD._replace(transfer_key=key, **changes.get(kind, {})) for key, kind in enumerate(kinds, 1)]
    alone = [step for answer in answers for step in decide_fulfil([answer], transfers, NOW)]
    assert decide_fulfil(answers, transfers, NOW) == alone


@given(st.lists(st.sampled_from([None, *TransferState]), min_size=1, max_size=12))
def test_each_open_item_is_pushed_for_itself(states: list[TransferState | None]) -> None:  # D14, D17
    items = [OpenItem(key, ItemState.ACCEPTED, state, "reject", NO_FUNDS) for key, state in enumerate(states, 1)]
    alone = [decide_timeout([item]) for item in items]
    decided = decide_timeout(items)
    assert decided.messages == [message for one in alone for message in one.messages]
    assert decided.steps == [step for one in alone for step in one.steps]
