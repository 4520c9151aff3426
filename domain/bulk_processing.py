"""What a bulk makes of the news about its items: the decision of bulk-processing, and of nobody else.

The outcome is a function of the bulk's rows under its lock, never of which message came last (D7, D8, X-30). A message
moves one item, if the item's machine allows the step; otherwise it is a repeat or came too late, and is dropped (D3).
Then, for every bulk that a message moved:

    phase            open while an item is       closes as
    PENDING_PREPARE  RECEIVED                    ACCEPTED if any item is ACCEPTED; else EXPIRED if any expired; else REJECTED
    PROCESSING,      ACCEPTED                    COMPLETED if any item is COMPLETED; else EXPIRED if any expired; else
    PENDING_FULFIL                               REJECTED; INVALID after a fulfil that was invalid as a whole
    EXPIRING         RECEIVED or ACCEPTED        as the fulfil phase does; nothing is forwarded any more

An item *expired* if it is EXPIRED or its error is 3303.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from domain.combinations import ERROR, SUCCESS
from domain.fspiop_errors import ErrorCode, FspiopError
from domain.states import ITEM_TRANSITIONS, BulkState, ItemState, TransferState, require_step

# (action, status) of a message on topic-bulk-processing → what it makes of its item (BULK-62…81).
ITEM_STATE_AFTER: Mapping[tuple[str, str], ItemState] = {
    ("bulk-prepare", SUCCESS): ItemState.ACCEPTED,
    ("bulk-prepare", ERROR): ItemState.RECEIVED_INVALID,
    ("prepare-duplicate", SUCCESS): ItemState.RECEIVED_DUPLICATE,
    ("prepare-duplicate", ERROR): ItemState.RECEIVED_DUPLICATE,
    ("bulk-commit", SUCCESS): ItemState.COMPLETED,
    ("bulk-commit", ERROR): ItemState.FULFIL_INVALID,
    ("reject", SUCCESS): ItemState.REJECTED,
    ("fulfil-duplicate", SUCCESS): ItemState.FULFIL_DUPLICATE,
    ("fulfil-duplicate", ERROR): ItemState.FULFIL_DUPLICATE,
    ("bulk-timeout-received", ERROR): ItemState.EXPIRED,
    ("bulk-timeout-reserved", ERROR): ItemState.EXPIRED,
}

# An item without a reservation may expire only if no reservation can follow: there is no transfer, or it has expired too.
# Prepare holds a share lock on the bulk while it writes transfers, so this cannot change under bulk-processing's lock.
_MAY_EXPIRE_UNRESERVED = (None, TransferState.EXPIRED_PREPARED)


class FulfilOutcome(Enum):
    """What bulk-fulfil made of the payee's answer as a whole."""

    VALID = "VALID"
    INVALID = "INVALID"
    REJECTED = "REJECTED"
    ERROR = "ERROR"


class ItemNews(NamedTuple):
    """One message about one item."""

    bulk_key: int
    transfer_key: int
    action: str
    status: str
    error: FspiopError | None


class ItemStep(NamedTuple):
    transfer_key: int
    to_state: ItemState
    error: FspiopError | None


def decide_items(
    news: Iterable[ItemNews],
    item_states: Mapping[int, ItemState],
    transfer_states: Mapping[int, TransferState],
) -> list[ItemStep]:
    """The steps of the items, at most one step out of a state per item and batch, in the order of the news."""
    states = dict(item_states)
    steps: dict[int, ItemStep] = {}
    for one in news:
        state = states.get(one.transfer_key)
        to_state = ITEM_STATE_AFTER[one.action, one.status]
        if state is None or to_state not in ITEM_TRANSITIONS[state]:
            continue
        if one.action == "bulk-timeout-received" and (
            state is not ItemState.RECEIVED or transfer_states.get(one.transfer_key) not in _MAY_EXPIRE_UNRESERVED
        ):
            continue
        states[one.transfer_key] = to_state
        steps[one.transfer_key] = ItemStep(one.transfer_key, to_state, one.error)
    return list(steps.values())


@dataclass(frozen=True, slots=True)
class BulkTally:
    """A bulk under its lock, after its items were set: how many items are in each state, and how many have error 3303."""

    bulk_key: int
    state: BulkState
    items: Mapping[ItemState, int]
    expired_errors: int
    fulfil_outcome: FulfilOutcome | None


@dataclass(frozen=True, slots=True)
class BulkStep:
    """The bulk becomes `to_state`: ACCEPTED means that it is forwarded, a final state that it has ended."""

    bulk_key: int
    from_state: BulkState
    to_state: BulkState


def decide_bulk(tally: BulkTally) -> BulkStep | None:
    """The step that a bulk's rows call for, or None."""
    to_state = _next_state(tally)
    if to_state is None or to_state is tally.state:
        return None
    require_step(tally.state, to_state)
    return BulkStep(tally.bulk_key, tally.state, to_state)


def _next_state(tally: BulkTally) -> BulkState | None:
    received = tally.items.get(ItemState.RECEIVED)
    accepted = tally.items.get(ItemState.ACCEPTED)
    match tally.state:
        case BulkState.PENDING_PREPARE:
            if received:
                return None
            return BulkState.ACCEPTED if accepted else _without_commit(tally)
        case BulkState.PROCESSING | BulkState.PENDING_FULFIL:
            # The first answer that leaves others open makes PENDING_FULFIL of PROCESSING.
            return BulkState.PENDING_FULFIL if accepted else _ended(tally)
        case BulkState.EXPIRING:
            return None if received or accepted else _ended(tally)
    # No news moves a bulk whose items have not been told yet, that waits for the payee, or that has ended.
    return None


def _ended(tally: BulkTally) -> BulkState:
    if tally.items.get(ItemState.COMPLETED):
        return BulkState.COMPLETED
    if tally.fulfil_outcome is FulfilOutcome.INVALID:
        return BulkState.INVALID
    return _without_commit(tally)


def _without_commit(tally: BulkTally) -> BulkState:
    if tally.items.get(ItemState.EXPIRED) or tally.expired_errors:
        return BulkState.EXPIRED
    return BulkState.REJECTED


def is_expired_error(error: FspiopError | None) -> bool:
    return error is not None and error.code == ErrorCode.TRANSFER_EXPIRED.code


def payer_is_told_an_error(state: BulkState, outcome: FulfilOutcome | None) -> bool:
    """Which callback the payer gets at the end (architecture §6 "Which callback"); the payee always gets a PUT."""
    return state is BulkState.INVALID or (state is BulkState.REJECTED and outcome is FulfilOutcome.ERROR)
