"""position: money is reserved, committed or given back, under the locks of the accounts.

Consumes    topic-transfer-position: TransferPosition (#7 prepare, #17 commit, #23 timeout, and reject, bulk-abort)
Refuses     a prepare whose item no longer waits or has expired, or that cover (4001) or net debit cap (4200) forbid
Changes     one step per transfer with the position after it, and the positions of the accounts
Emits       BulkProcessing: #9 reserved, #10 refused, #11 committed, #14 given back after the payee's refusal, #18 given back
            after a fulfil that failed, #24 given back after the time ran out

The accounts (POSITION and SETTLEMENT) are locked in id order in a statement of their own; what is decided on is read after
it. A transfer's step is keyed by the state it leaves, so a repeat and a late message find another state and do nothing (D3),
and of two that race one rolls back.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.clock import now_ms
from db.positions import lock_positions_with_cover, read_positions, write_positions
from db.transfers import TransferStateChange, insert_transfer_steps, legs_of, transfers_by_key
from domain.combinations import (
    ITEM_COMMITTED,
    ITEM_FULFIL_INVALID,
    ITEM_NOT_RESERVED,
    ITEM_REFUSED,
    ITEM_RELEASED,
    ITEM_RESERVED,
    TOPIC_TRANSFER_POSITION,
    Combination,
    require_all_known,
)
from domain.fspiop_errors import TRANSFER_EXPIRED, ErrorCode, FspiopError, fspiop_error
from domain.position import Move, Step, decide_positions
from domain.states import TransferState
from domain.timeout import REASON_REJECT
from domain.transfers import Transfer
from handlers.handler import Crash, Output
from handlers.news import item_news
from schemas.messages import TransferPosition

_MOVES = {
    "bulk-prepare": Move.PREPARE,
    "bulk-commit": Move.COMMIT,
    "reject": Move.ABORT,
    "bulk-abort": Move.ABORT,
    "bulk-timeout-reserved": Move.TIMEOUT,
}


class PositionHandler:
    """See the module's docstring."""

    name = "position"
    topic = TOPIC_TRANSFER_POSITION
    message = TransferPosition

    def weight(self, message: TransferPosition) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[TransferPosition]) -> list[Output]:
        require_all_known(self.topic, messages)
        requests = [(message.transfer_key, _MOVES[message.action]) for message in messages]
        # Which account a move touches never changes, so it can be learned before the lock; all else is read after it.
        accounts_to_lock = legs_of(
            tx,
            payer_keys=[key for key, move in requests if move is not Move.COMMIT],
            payee_keys=[key for key, move in requests if move is Move.COMMIT],
        )
        lock_positions_with_cover(tx, accounts_to_lock)
        transfers = transfers_by_key(tx, [key for key, _ in requests])
        accounts = read_positions(tx, accounts_to_lock)
        decision = decide_positions(requests, transfers, accounts, now_ms(tx))
        if decision.steps:
            insert_transfer_steps(tx, [_step_row(step, transfers[step.transfer_key]) for step in decision.steps])
        if decision.positions:
            write_positions(tx, decision.positions)
        by_key = {message.transfer_key: message for message in messages}
        return [_news(step, transfers[step.transfer_key], by_key[step.transfer_key]) for step in decision.steps]

    def give_up(self, tx: Connection, message: TransferPosition, reason: str) -> list[Output]:
        """A transfer that holds no money yet is rejected with 2001; with money on its way nobody may give up."""
        if _MOVES.get(message.action) is not Move.PREPARE:
            raise Crash(f"position: money is on its way in transfer {message.transfer_key}: {reason}")
        row = transfers_by_key(tx, [message.transfer_key]).get(message.transfer_key)
        if row is None or row.state is not TransferState.RECEIVED_PREPARE:
            return []
        error = fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, "the transfer could not be reserved")
        step = TransferStateChange(
            message.transfer_key, row.state, TransferState.ABORTED_REJECTED, message.action, error=error
        )
        insert_transfer_steps(tx, [step])
        return [item_news(ITEM_NOT_RESERVED, message.bulk_transfer_id, row.transfer_key, message.transfer_id, error)]


def _reason(step: Step, transfer: Transfer) -> str:
    # An abort keeps the reason of the RECEIVED_ERROR before it, so that what it answers can be derived again.
    match step.move:
        case Move.PREPARE:
            return "bulk-prepare"
        case Move.COMMIT:
            return "bulk-commit"
        case Move.ABORT:
            return transfer.reason
        case Move.TIMEOUT:
            return "bulk-timeout-reserved"


def _error(step: Step, transfer: Transfer) -> FspiopError | None:
    match step.move:
        case Move.ABORT:
            return transfer.error
        case Move.TIMEOUT:
            return TRANSFER_EXPIRED
        case _:
            return step.error


def _step_row(step: Step, transfer: Transfer) -> TransferStateChange:
    return TransferStateChange(
        step.transfer_key,
        step.from_state,
        step.to_state,
        _reason(step, transfer),
        position=step.position,
        error=_error(step, transfer),
    )


def _answer(step: Step, transfer: Transfer) -> Combination:
    match step.to_state:
        case TransferState.RESERVED:
            return ITEM_RESERVED
        case TransferState.ABORTED_REJECTED:
            return ITEM_NOT_RESERVED
        case TransferState.COMMITTED:
            return ITEM_COMMITTED
        case TransferState.EXPIRED_RESERVED:
            return ITEM_RELEASED
        case _:
            return ITEM_REFUSED if transfer.reason == REASON_REJECT else ITEM_FULFIL_INVALID


def _news(step: Step, transfer: Transfer, message: TransferPosition) -> Output:
    return item_news(
        _answer(step, transfer),
        message.bulk_transfer_id,
        step.transfer_key,
        message.transfer_id,
        _error(step, transfer),
    )
