"""No reservation goes past cover or cap, every move happens once, and the order within a batch is credits before debits."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.fspiop_errors import TRANSFER_EXPIRED
from domain.position import (
    NO_LIQUIDITY,
    NOT_WAITING,
    OVER_LIMIT,
    AccountPosition,
    Move,
    decide_positions,
)
from domain.states import TRANSFER_TRANSITIONS, ItemState, TransferState
from domain.transfers import Transfer

NOW = 1_000_000


def transfer(key: int, amount: int, state: TransferState = TransferState.RECEIVED_PREPARE, **changes: Any) -> Transfer:
    fact = Transfer(key, state, amount, 1, 2, None, NOW + 1, ItemState.RECEIVED, "bulk-prepare", None)
    return fact._replace(**changes)


def account(
    id_: int, value: int = 0, cover: int = 10**9, cap: int | None = 10**9, reserved: int = 0
) -> AccountPosition:
    return AccountPosition(id_, value, reserved, cover, cap)


def test_ten_transfers_of_100_under_a_cap_of_300() -> None:
    """D1 literally: Mojaloop's batch reserves all ten; three is right."""
    transfers = {key: transfer(key, 100) for key in range(10)}
    accounts = {1: account(1, cover=300, cap=300), 2: account(2)}
    decision = decide_positions([(key, Move.PREPARE) for key in transfers], transfers, accounts, NOW)
    assert [step.to_state for step in decision.steps] == [TransferState.RESERVED] * 3 + [
        TransferState.ABORTED_REJECTED
    ] * 7
    assert [step.position for step in decision.steps[:3]] == [100, 200, 300]
    assert decision.positions == {1: 300}


def test_refusals_in_their_order() -> None:  # D26, mojaloop-pipeline.md §9
    cases = [
        (transfer(1, 10, item_state=ItemState.EXPIRED, expiration_ms=NOW), account(1, cover=0, cap=0), NOT_WAITING),
        (transfer(1, 10, expiration_ms=NOW), account(1, cover=0, cap=0), TRANSFER_EXPIRED),
        (transfer(1, 10), account(1, cover=9, cap=9), NO_LIQUIDITY),
        (transfer(1, 10), account(1, cover=10, cap=9), OVER_LIMIT),
        (transfer(1, 10), account(1, cover=10, cap=None), OVER_LIMIT),
        (transfer(1, 10), account(1, cover=10, cap=10, reserved=1), NO_LIQUIDITY),
        (transfer(1, 10), account(1, cover=10, cap=10), None),
    ]
    for fact, position, error in cases:
        [step] = decide_positions([(1, Move.PREPARE)], {1: fact}, {1: position}, NOW).steps
        assert step.error == error


def test_eighteen_digits_are_compared_exactly() -> None:  # D26
    huge = 999_999_999_999_999_999_9999
    fits, misses = account(1, cover=huge, cap=huge), account(1, cover=huge - 1, cap=huge)
    [step] = decide_positions([(1, Move.PREPARE)], {1: transfer(1, huge)}, {1: fits}, NOW).steps
    assert step.to_state is TransferState.RESERVED
    [step] = decide_positions([(1, Move.PREPARE)], {1: transfer(1, huge)}, {1: misses}, NOW).steps
    assert step.error == NO_LIQUIDITY


def test_what_is_given_back_in_a_batch_can_be_used_in_it() -> None:
    transfers = {1: transfer(1, 100), 2: transfer(2, 100, TransferState.RECEIVED_ERROR)}
    accounts = {1: account(1, value=100, cover=100, cap=100)}
    decision = decide_positions([(1, Move.PREPARE), (2, Move.ABORT)], transfers, accounts, NOW)
    assert [(step.transfer_key, step.position) for step in decision.steps] == [(2, 0), (1, 100)]


states = st.sampled_from(list(TransferState))
moves = st.sampled_from(list(Move))


@given(
    amounts=st.lists(st.tuples(st.integers(0, 1_000), states, st.integers(1, 3), st.integers(4, 6)), max_size=30),
    requests=st.lists(st.tuples(st.integers(0, 35), moves), max_size=80),
    values=st.lists(st.integers(-2_000, 2_000), min_size=6, max_size=6),
    covers=st.lists(st.integers(-500, 3_000), min_size=6, max_size=6),
    caps=st.lists(st.one_of(st.none(), st.integers(0, 3_000)), min_size=6, max_size=6),
)
def test_any_batch_keeps_the_rules(
    amounts: Sequence[tuple[int, TransferState, int, int]],
    requests: Sequence[tuple[int, Move]],
    values: Sequence[int],
    covers: Sequence[int],
    caps: Sequence[int | None],
) -> None:
    """X-35, D3, BULK-121, BULK-122: whatever is asked, repeated or asked in the wrong state."""
    transfers = {
        key: transfer(key, amount, state, payer_account=payer, payee_account=payee)
        for key, (amount, state, payer, payee) in enumerate(amounts)
    }
    accounts = {i + 1: account(i + 1, values[i], covers[i], caps[i]) for i in range(6)}
    decision = decide_positions(requests, transfers, accounts, NOW)
    assert len({step.transfer_key for step in decision.steps}) == len(decision.steps), (
        "each transfer moves at most once"
    )
    running = {id_: one.value for id_, one in accounts.items()}
    for step in decision.steps:
        fact = transfers[step.transfer_key]
        assert fact.payer_account is not None
        assert fact.payee_account is not None
        assert step.to_state in TRANSFER_TRANSITIONS[fact.state]
        match step.to_state:
            case TransferState.RESERVED:
                running[fact.payer_account] += fact.amount
                cap = accounts[fact.payer_account].net_debit_cap
                assert cap is not None
                assert running[fact.payer_account] <= min(cap, accounts[fact.payer_account].cover)
            case TransferState.COMMITTED:
                running[fact.payee_account] -= fact.amount
            case TransferState.ABORTED_ERROR | TransferState.EXPIRED_RESERVED:
                running[fact.payer_account] -= fact.amount
        if step.position is not None:
            assert step.position == running[step.account_id], "each row tells the position after it"
    assert {**{i: one.value for i, one in accounts.items()}, **decision.positions} == running
    again = {step.transfer_key: step.to_state for step in decision.steps}
    after = {
        key: transfer(
            key,
            fact.amount,
            again.get(key, fact.state),
            payer_account=fact.payer_account,
            payee_account=fact.payee_account,
        )
        for key, fact in transfers.items()
    }
    moved = {step.transfer_key for step in decision.steps}
    repeats = [(key, move) for key, move in requests if key in moved and move.value is transfers[key].state]
    assert decide_positions(repeats, after, accounts, NOW).steps == [], "a repeat does nothing"
