"""What is due when an expiration has passed: the decision of timeout, for bulks and for single transfers.

A due bulk becomes EXPIRING, and every item of it that is still open is looked at:

    its transfer is      step                 message
    not there            –                    #22: the item expires, unless prepare was quicker
    RECEIVED_PREPARE     EXPIRED_PREPARED     #22
    RESERVED             RESERVED_TIMEOUT     #23: position gives the money back and answers with #24
    on its way, ended    –                    the one its state calls for, once more (D17); never expired

A due single transfer takes the same steps; its messages are those of domain/single_transfers.py.

`due_message` is the general form of the last column: what any transfer whose item is open waits for. Nothing here depends
on what was sent before, so a message that was lost is derived again, and a repeat is dropped by whoever reads it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

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
    Combination,
)
from domain.fspiop_errors import TRANSFER_EXPIRED, FspiopError
from domain.states import BULK_TRANSITIONS, OPEN_ITEM_STATES, BulkState, ItemState, TransferState

# What a transfer becomes when its time has run out; in any other state it is on its way, or has ended.
EXPIRY_STEPS = {
    TransferState.RECEIVED_PREPARE: TransferState.EXPIRED_PREPARED,
    TransferState.RESERVED: TransferState.RESERVED_TIMEOUT,
}

# The reason of a RECEIVED_ERROR that was the payee's own refusal (#14), beside the others (#18).
REASON_REJECT = POSITION_REJECT.action


class OpenItem(NamedTuple):
    """An item of a due bulk with its transfer's state, and the reason and error of that state's step."""

    transfer_key: int
    item_state: ItemState
    transfer_state: TransferState | None
    reason: str | None = None
    error: FspiopError | None = None


class ExpiryStep(NamedTuple):
    transfer_key: int
    from_state: TransferState
    to_state: TransferState


class DueMessage(NamedTuple):
    transfer_key: int
    combination: Combination
    error: FspiopError | None = None


@dataclass(frozen=True, slots=True)
class TimeoutDecision:
    steps: list[ExpiryStep]
    messages: list[DueMessage]


def becomes_expiring(state: BulkState) -> bool:
    """Whether a due bulk in this state takes the step to EXPIRING now."""
    return BulkState.EXPIRING in BULK_TRANSITIONS[state]


def decide_timeout(items: Iterable[OpenItem]) -> TimeoutDecision:
    """The steps and messages for the open items of bulks that are due."""
    steps: list[ExpiryStep] = []
    messages: list[DueMessage] = []
    for item in items:
        assert item.item_state in OPEN_ITEM_STATES
        state = item.transfer_state
        if state is TransferState.RECEIVED_PREPARE:
            steps.append(ExpiryStep(item.transfer_key, state, EXPIRY_STEPS[state]))
            messages.append(DueMessage(item.transfer_key, ITEM_EXPIRED, TRANSFER_EXPIRED))
        elif state is TransferState.RESERVED:
            steps.append(ExpiryStep(item.transfer_key, state, EXPIRY_STEPS[state]))
            messages.append(DueMessage(item.transfer_key, POSITION_TIMEOUT))
        elif state is None:
            messages.append(DueMessage(item.transfer_key, ITEM_EXPIRED, TRANSFER_EXPIRED))
        else:
            messages.append(due_message(item.transfer_key, state, item.reason, item.error))
    return TimeoutDecision(steps, messages)


def due_message(transfer_key: int, state: TransferState, reason: str | None, error: FspiopError | None) -> DueMessage:
    """The message that a transfer's state calls for while its item is open; for states that only time can end, see above."""
    match state:
        case TransferState.RECEIVED_FULFIL:
            return DueMessage(transfer_key, POSITION_COMMIT)
        case TransferState.RECEIVED_ERROR:
            return DueMessage(transfer_key, POSITION_REJECT if reason == REASON_REJECT else POSITION_ABORT)
        case TransferState.RESERVED_TIMEOUT:
            return DueMessage(transfer_key, POSITION_TIMEOUT)
        case TransferState.INVALID:
            return DueMessage(transfer_key, ITEM_INVALID, error)
        case TransferState.ABORTED_REJECTED:
            return DueMessage(transfer_key, ITEM_NOT_RESERVED, error)
        case TransferState.EXPIRED_PREPARED:
            return DueMessage(transfer_key, ITEM_EXPIRED, TRANSFER_EXPIRED)
        case TransferState.EXPIRED_RESERVED:
            return DueMessage(transfer_key, ITEM_RELEASED, TRANSFER_EXPIRED)
        case TransferState.COMMITTED:
            return DueMessage(transfer_key, ITEM_COMMITTED)
        case TransferState.ABORTED_ERROR:
            return DueMessage(transfer_key, ITEM_REFUSED if reason == REASON_REJECT else ITEM_FULFIL_INVALID, error)
        # The last there are: mypy finds one that is missing.
        case TransferState.RECEIVED_PREPARE | TransferState.RESERVED:  # pragma: no branch
            raise AssertionError(f"a transfer in {state} waits for position or for the payee, and may expire")
