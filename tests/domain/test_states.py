"""The machines have no cycle, every state is mapped, and one function raises."""

from collections.abc import Mapping
from typing import Any

import pytest

from domain.states import (
    BULK_API_STATES,
    BULK_TRANSITIONS,
    FORWARDED_ITEM_STATES,
    FUNDS_TRANSITIONS,
    ITEM_TRANSITIONS,
    START,
    TRANSFER_API_STATES,
    TRANSFER_TRANSITIONS,
    AnyState,
    BulkState,
    FundsState,
    IllegalTransition,
    ItemState,
    TransferState,
    is_final,
    require_step,
)

MACHINES: list[tuple[type[AnyState], Mapping[str, frozenset[Any]]]] = [
    (BulkState, BULK_TRANSITIONS),
    (ItemState, ITEM_TRANSITIONS),
    (TransferState, TRANSFER_TRANSITIONS),
    (FundsState, FUNDS_TRANSITIONS),
]


@pytest.mark.parametrize(("states", "table"), MACHINES)
def test_every_state_stands_in_its_table_terminal_ones_empty(
    states: type[AnyState], table: Mapping[str, frozenset[AnyState]]
) -> None:
    assert set(table) == {START, *states}
    reachable = {after for afters in table.values() for after in afters}
    assert reachable == set(states), "every state can be reached"


@pytest.mark.parametrize(("states", "table"), MACHINES)
def test_no_machine_has_a_cycle(states: type[AnyState], table: Mapping[str, frozenset[AnyState]]) -> None:
    """BULK-135: so a state is left at most once, which is what keys every step."""

    def walk(state: str, path: tuple[str, ...]) -> None:
        assert state not in path, f"{state} comes back over {path}"
        for after in table[state]:
            walk(after, (*path, state))

    walk(START, ())


@pytest.mark.parametrize(("states", "table"), MACHINES)
def test_the_one_function_that_raises_agrees_with_the_table(
    states: type[AnyState], table: Mapping[str, frozenset[AnyState]]
) -> None:
    for before in (START, *states):
        for after in states:
            if after in table[before]:
                require_step(before, after)
            else:
                with pytest.raises(IllegalTransition, match="may not become"):
                    require_step(before, after)


def test_the_api_shows_six_states_and_never_a_micro_state() -> None:  # BULK-34…46
    assert set(BULK_API_STATES) == set(BulkState)
    assert set(BULK_API_STATES.values()) == {"RECEIVED", "PENDING", "ACCEPTED", "PROCESSING", "COMPLETED", "REJECTED"}
    assert {state.value: shown for state, shown in BULK_API_STATES.items() if state.value != shown} == {
        "PENDING_PREPARE": "PENDING",
        "PENDING_INVALID": "PENDING",
        "PENDING_FULFIL": "PROCESSING",
        "EXPIRING": "PROCESSING",
        "EXPIRED": "COMPLETED",
        "INVALID": "REJECTED",
    }


def test_transfer_states_are_shown_as_fspiop_knows_them() -> None:
    assert set(TRANSFER_API_STATES) == set(TransferState)
    assert set(TRANSFER_API_STATES.values()) == {"RECEIVED", "RESERVED", "COMMITTED", "ABORTED"}


def test_final_means_that_nothing_follows() -> None:
    assert {state for state in BulkState if is_final(state)} == {
        BulkState.COMPLETED,
        BulkState.EXPIRED,
        BulkState.REJECTED,
        BulkState.INVALID,
    }


def test_processing_states_are_the_seeds() -> None:  # BULK-47
    assert {state.value for state in ItemState} == {
        "RECEIVED",
        "RECEIVED_DUPLICATE",
        "RECEIVED_INVALID",
        "ACCEPTED",
        "COMPLETED",
        "REJECTED",
        "FULFIL_INVALID",
        "FULFIL_DUPLICATE",
        "EXPIRED",
    }


def test_forwarded_items_are_those_that_were_accepted_or_can_follow_it() -> None:
    assert {ItemState.ACCEPTED, *ITEM_TRANSITIONS[ItemState.ACCEPTED]} == FORWARDED_ITEM_STATES


# Architecture §6, copied by hand: what a mistake in the tables would be found with.
MAY_BECOME: dict[type[AnyState], dict[str, str]] = {
    BulkState: {
        "-": "RECEIVED",
        "RECEIVED": "PENDING_INVALID PENDING_PREPARE",
        "PENDING_INVALID": "REJECTED",
        "PENDING_PREPARE": "ACCEPTED REJECTED EXPIRED EXPIRING",
        "ACCEPTED": "PROCESSING EXPIRING",
        "PROCESSING": "PENDING_FULFIL COMPLETED REJECTED INVALID EXPIRED EXPIRING",
        "PENDING_FULFIL": "COMPLETED REJECTED INVALID EXPIRED EXPIRING",
        "EXPIRING": "COMPLETED EXPIRED REJECTED INVALID",
    },
    ItemState: {
        "-": "RECEIVED",
        "RECEIVED": "ACCEPTED RECEIVED_DUPLICATE RECEIVED_INVALID EXPIRED",
        "ACCEPTED": "COMPLETED REJECTED FULFIL_INVALID FULFIL_DUPLICATE EXPIRED",
    },
    TransferState: {
        "-": "RECEIVED_PREPARE INVALID",
        "RECEIVED_PREPARE": "RESERVED ABORTED_REJECTED EXPIRED_PREPARED",
        "RESERVED": "RECEIVED_FULFIL RECEIVED_ERROR RESERVED_TIMEOUT",
        "RECEIVED_FULFIL": "COMMITTED",
        "RECEIVED_ERROR": "ABORTED_ERROR",
        "RESERVED_TIMEOUT": "EXPIRED_RESERVED",
    },
    FundsState: {"-": "RESERVED COMMITTED", "RESERVED": "COMMITTED ABORTED"},
}


@pytest.mark.parametrize(("states", "table"), MACHINES)
def test_the_tables_are_the_designs(states: type[AnyState], table: Mapping[str, frozenset[AnyState]]) -> None:
    """BULK-15, BULK-16, BULK-18, BULK-28, BULK-135: a state that is left out ends its machine."""
    ours = {str(before): {str(after) for after in afters} for before, afters in table.items() if afters}
    assert ours == {before: set(afters.split()) for before, afters in MAY_BECOME[states].items()}
