"""The decision about funds, row by row: what may become what, what it does to the accounts, who is refused first."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.funds import (
    VALUE_END,
    FundsAccounts,
    FundsAction,
    FundsRefusal,
    FundsRequest,
    FundsStep,
    decide_funds,
    decide_funds_end,
)
from domain.states import FUNDS_TRANSITIONS, START, FundsState

OPEN = FundsAccounts(True, True, position_value=30, position_reserved_value=5, settlement_value=-100, hub_value=100)
IN = FundsRequest(7, FundsAction.IN, 10, "reason", "reference", ())
OUT = replace(IN, action=FundsAction.OUT_PREPARE_RESERVE)


def code_of(decision: object) -> str:
    assert isinstance(decision, FundsRefusal)
    return decision.code.code


def test_the_signs() -> None:  # reference §11.5
    assert decide_funds(IN, None, OPEN) == FundsStep(START, FundsState.COMMITTED, -110, 110)
    assert decide_funds(OUT, None, OPEN) == FundsStep(START, FundsState.RESERVED, -90, 100)
    reserved = FundsState.RESERVED
    assert decide_funds_end(FundsAction.OUT_COMMIT, 10, reserved, OPEN) == FundsStep(
        reserved, FundsState.COMMITTED, -100, 90
    )
    assert decide_funds_end(FundsAction.OUT_ABORT, 10, reserved, OPEN) == FundsStep(
        reserved, FundsState.ABORTED, -110, 100
    )


@pytest.mark.parametrize("action", [FundsAction.OUT_COMMIT, FundsAction.OUT_ABORT])
@pytest.mark.parametrize("state", FundsState)
def test_a_step_is_made_only_where_the_table_has_it(action: FundsAction, state: FundsState) -> None:
    wanted = FundsState.COMMITTED if action is FundsAction.OUT_COMMIT else FundsState.ABORTED
    decision = decide_funds_end(action, 1, state, OPEN)
    if wanted in FUNDS_TRANSITIONS[state]:
        assert isinstance(decision, FundsStep)
        assert (decision.from_state, decision.to_state) == (state, wanted)
    elif state is wanted:
        assert decision is None
    else:
        assert code_of(decision) == "3100"


def test_the_first_reason_is_the_one_that_is_given() -> None:
    shut = replace(OPEN, participant_is_active=False, settlement_is_active=False)
    greedy = replace(OUT, amount=1_000)
    assert decide_funds(greedy, greedy, shut) is None
    assert code_of(decide_funds(greedy, IN, shut)) == "3106"
    refusal = decide_funds(greedy, None, shut)
    assert isinstance(refusal, FundsRefusal)
    assert refusal.detail == "Participant is currently set inactive"
    refusal = decide_funds(greedy, None, replace(shut, participant_is_active=True))
    assert isinstance(refusal, FundsRefusal)
    assert refusal.detail == "Account is currently set inactive"
    assert code_of(decide_funds(greedy, None, OPEN)) == "4001"
    assert code_of(decide_funds(replace(IN, amount=VALUE_END - 100), None, OPEN)) == "3100"


@given(
    amount=st.integers(1, 400),
    position=st.integers(-200, 200),
    reserved=st.integers(0, 50),
    cover=st.integers(0, 300),
)
def test_what_stays_always_carries_the_position(amount: int, position: int, reserved: int, cover: int) -> None:
    accounts = replace(OPEN, position_value=position, position_reserved_value=reserved, settlement_value=-cover)
    decision = decide_funds(replace(OUT, amount=amount), None, accounts)
    fits = cover - amount >= max(position + reserved, 0)
    if fits:
        assert isinstance(decision, FundsStep)
        assert -decision.settlement_value == cover - amount
        ended = replace(accounts, settlement_value=decision.settlement_value)
        given_back = decide_funds_end(FundsAction.OUT_ABORT, amount, FundsState.RESERVED, ended)
        assert isinstance(given_back, FundsStep)
        assert -given_back.settlement_value == cover
    else:
        assert code_of(decision) == "4001"
