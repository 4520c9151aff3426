"""Everything that says which state may become which stands in this file, and nothing else does.

Four machines, none with a cycle, so a state is left at most once: the database keys every step by (entity, from_state)
and thereby refuses a second step out of the same state, whoever wants it. Terminal states are present and empty. One
function, `require_step`, raises. The diagrams in docs/states.md are written from these tables and a test keeps them equal.

Sources: seed 002 §4.1, BULK-34…47, architecture §6; the API mapping is what `GET /bulkTransfers/{ID}` may show.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class BulkState(StrEnum):
    """bulkTransferState as the switch knows it; `BULK_API_STATES` says what an FSP sees of it."""

    RECEIVED = "RECEIVED"
    PENDING_PREPARE = "PENDING_PREPARE"
    PENDING_INVALID = "PENDING_INVALID"
    ACCEPTED = "ACCEPTED"
    PROCESSING = "PROCESSING"
    PENDING_FULFIL = "PENDING_FULFIL"
    EXPIRING = "EXPIRING"
    COMPLETED = "COMPLETED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    INVALID = "INVALID"


class ItemState(StrEnum):
    """bulkProcessingState: what has become of one individual transfer within its bulk."""

    RECEIVED = "RECEIVED"
    RECEIVED_DUPLICATE = "RECEIVED_DUPLICATE"
    RECEIVED_INVALID = "RECEIVED_INVALID"
    ACCEPTED = "ACCEPTED"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    FULFIL_INVALID = "FULFIL_INVALID"
    FULFIL_DUPLICATE = "FULFIL_DUPLICATE"
    EXPIRED = "EXPIRED"


class TransferState(StrEnum):
    """transferState as the switch knows it; every step is a row of transfer_state_change."""

    RECEIVED_PREPARE = "RECEIVED_PREPARE"
    INVALID = "INVALID"
    RESERVED = "RESERVED"
    ABORTED_REJECTED = "ABORTED_REJECTED"
    EXPIRED_PREPARED = "EXPIRED_PREPARED"
    RECEIVED_FULFIL = "RECEIVED_FULFIL"
    RECEIVED_ERROR = "RECEIVED_ERROR"
    RESERVED_TIMEOUT = "RESERVED_TIMEOUT"
    COMMITTED = "COMMITTED"
    ABORTED_ERROR = "ABORTED_ERROR"
    EXPIRED_RESERVED = "EXPIRED_RESERVED"


class FundsState(StrEnum):
    """The state of funds in and out at the hub's bank, as GET /transfers/{ID} shows it (reference §11.6)."""

    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"


# The from_state of the first step of every entity: before it there was nothing.
START = "-"

AnyState = BulkState | ItemState | TransferState | FundsState

BULK_TRANSITIONS: Mapping[str, frozenset[BulkState]] = {
    START: frozenset({BulkState.RECEIVED}),
    BulkState.RECEIVED: frozenset({BulkState.PENDING_INVALID, BulkState.PENDING_PREPARE}),
    BulkState.PENDING_INVALID: frozenset({BulkState.REJECTED}),
    BulkState.PENDING_PREPARE: frozenset(
        {BulkState.ACCEPTED, BulkState.REJECTED, BulkState.EXPIRED, BulkState.EXPIRING}
    ),
    BulkState.ACCEPTED: frozenset({BulkState.PROCESSING, BulkState.EXPIRING}),
    BulkState.PROCESSING: frozenset(
        {
            BulkState.PENDING_FULFIL,
            BulkState.COMPLETED,
            BulkState.REJECTED,
            BulkState.INVALID,
            BulkState.EXPIRED,
            BulkState.EXPIRING,
        }
    ),
    BulkState.PENDING_FULFIL: frozenset(
        {BulkState.COMPLETED, BulkState.REJECTED, BulkState.INVALID, BulkState.EXPIRED, BulkState.EXPIRING}
    ),
    BulkState.EXPIRING: frozenset({BulkState.COMPLETED, BulkState.EXPIRED, BulkState.REJECTED, BulkState.INVALID}),
    BulkState.COMPLETED: frozenset(),
    BulkState.EXPIRED: frozenset(),
    BulkState.REJECTED: frozenset(),
    BulkState.INVALID: frozenset(),
}

ITEM_TRANSITIONS: Mapping[str, frozenset[ItemState]] = {
    START: frozenset({ItemState.RECEIVED}),
    ItemState.RECEIVED: frozenset(
        {ItemState.ACCEPTED, ItemState.RECEIVED_DUPLICATE, ItemState.RECEIVED_INVALID, ItemState.EXPIRED}
    ),
    ItemState.ACCEPTED: frozenset(
        {
            ItemState.COMPLETED,
            ItemState.REJECTED,
            ItemState.FULFIL_INVALID,
            ItemState.FULFIL_DUPLICATE,
            ItemState.EXPIRED,
        }
    ),
    ItemState.RECEIVED_DUPLICATE: frozenset(),
    ItemState.RECEIVED_INVALID: frozenset(),
    ItemState.COMPLETED: frozenset(),
    ItemState.REJECTED: frozenset(),
    ItemState.FULFIL_INVALID: frozenset(),
    ItemState.FULFIL_DUPLICATE: frozenset(),
    ItemState.EXPIRED: frozenset(),
}

TRANSFER_TRANSITIONS: Mapping[str, frozenset[TransferState]] = {
    START: frozenset({TransferState.RECEIVED_PREPARE, TransferState.INVALID}),
    TransferState.RECEIVED_PREPARE: frozenset(
        {TransferState.RESERVED, TransferState.ABORTED_REJECTED, TransferState.EXPIRED_PREPARED}
    ),
    TransferState.RESERVED: frozenset(
        {TransferState.RECEIVED_FULFIL, TransferState.RECEIVED_ERROR, TransferState.RESERVED_TIMEOUT}
    ),
    TransferState.RECEIVED_FULFIL: frozenset({TransferState.COMMITTED}),
    TransferState.RECEIVED_ERROR: frozenset({TransferState.ABORTED_ERROR}),
    TransferState.RESERVED_TIMEOUT: frozenset({TransferState.EXPIRED_RESERVED}),
    TransferState.INVALID: frozenset(),
    TransferState.ABORTED_REJECTED: frozenset(),
    TransferState.EXPIRED_PREPARED: frozenset(),
    TransferState.COMMITTED: frozenset(),
    TransferState.ABORTED_ERROR: frozenset(),
    TransferState.EXPIRED_RESERVED: frozenset(),
}

FUNDS_TRANSITIONS: Mapping[str, frozenset[FundsState]] = {
    START: frozenset({FundsState.RESERVED, FundsState.COMMITTED}),
    FundsState.RESERVED: frozenset({FundsState.COMMITTED, FundsState.ABORTED}),
    FundsState.COMMITTED: frozenset(),
    FundsState.ABORTED: frozenset(),
}

# BULK-34…45: the enumeration that FSPIOP knows; the states on the left never leave the switch (BULK-46).
BULK_API_STATES: Mapping[BulkState, str] = {
    BulkState.RECEIVED: "RECEIVED",
    BulkState.PENDING_PREPARE: "PENDING",
    BulkState.PENDING_INVALID: "PENDING",
    BulkState.ACCEPTED: "ACCEPTED",
    BulkState.PROCESSING: "PROCESSING",
    BulkState.PENDING_FULFIL: "PROCESSING",
    BulkState.EXPIRING: "PROCESSING",
    BulkState.COMPLETED: "COMPLETED",
    BulkState.EXPIRED: "COMPLETED",
    BulkState.REJECTED: "REJECTED",
    BulkState.INVALID: "REJECTED",
}

TRANSFER_API_STATES: Mapping[TransferState, str] = {
    TransferState.RECEIVED_PREPARE: "RECEIVED",
    TransferState.RESERVED: "RESERVED",
    TransferState.RECEIVED_FULFIL: "RESERVED",
    TransferState.RECEIVED_ERROR: "RESERVED",
    TransferState.RESERVED_TIMEOUT: "RESERVED",
    TransferState.COMMITTED: "COMMITTED",
    TransferState.INVALID: "ABORTED",
    TransferState.ABORTED_REJECTED: "ABORTED",
    TransferState.ABORTED_ERROR: "ABORTED",
    TransferState.EXPIRED_PREPARED: "ABORTED",
    TransferState.EXPIRED_RESERVED: "ABORTED",
}


class IllegalTransition(Exception):
    """The tables in domain/states.py do not allow this step; it is a bug in the decision that asked for it."""


def require_step(from_state: str, to_state: AnyState) -> None:
    """Raise IllegalTransition unless the machine of `to_state` lets `from_state` become it."""
    table: Mapping[str, frozenset[Any]]
    match to_state:
        case BulkState():
            table = BULK_TRANSITIONS
        case ItemState():
            table = ITEM_TRANSITIONS
        case TransferState():
            table = TRANSFER_TRANSITIONS
        case FundsState():  # pragma: no branch  # the last there is: mypy finds one that is missing
            table = FUNDS_TRANSITIONS
    if to_state not in table.get(from_state, frozenset()):
        raise IllegalTransition(f"{type(to_state).__name__}: {from_state} may not become {to_state}")


def is_final(state: BulkState) -> bool:
    return not BULK_TRANSITIONS[state]


# An item that still waits for something: for its reservation, or for the payee's answer.
OPEN_ITEM_STATES = frozenset(state for state in ItemState if ITEM_TRANSITIONS[state])

# Once a bulk was ACCEPTED, an item in one of these was forwarded: what could not be reserved had ended before.
FORWARDED_ITEM_STATES = frozenset(
    {
        ItemState.ACCEPTED,
        ItemState.COMPLETED,
        ItemState.REJECTED,
        ItemState.FULFIL_INVALID,
        ItemState.FULFIL_DUPLICATE,
        ItemState.EXPIRED,
    }
)
