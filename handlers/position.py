"""position: the money of bulks' items is reserved, committed or given back, under the locks of the accounts.

Consumes    topic-transfer-position: TransferPosition (#7 prepare, #17 commit, #23 timeout, and reject, bulk-abort)
Refuses     a prepare whose item no longer waits or has expired, or that cover (4001) or net debit cap (4200) forbid
Changes     one step per transfer with the position after it, and the positions of the accounts (handlers/moves.py)
Emits       BulkProcessing: #9 reserved, #10 refused, #11 committed, #14 given back after the payee's refusal, #18 given back
            after a fulfil that failed, #24 given back after the time ran out
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.transfers import TransferStateChange, insert_transfer_steps, transfers_by_key
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
from domain.fspiop_errors import ErrorCode, fspiop_error
from domain.position import Move, Step
from domain.states import TransferState
from domain.timeout import REASON_REJECT
from domain.transfers import Transfer
from handlers.handler import Crash, Output
from handlers.moves import make_moves, step_error
from handlers.news import item_news
from schemas.messages import TransferPosition

_MOVES = {
    "bulk-prepare": Move.PREPARE,
    "bulk-commit": Move.COMMIT,
    "reject": Move.ABORT,
    "bulk-abort": Move.ABORT,
    "bulk-timeout-reserved": Move.TIMEOUT,
}
_REASONS = {
    Move.PREPARE: "bulk-prepare",
    Move.COMMIT: "bulk-commit",
    Move.TIMEOUT: "bulk-timeout-reserved",
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
        steps, transfers = make_moves(tx, requests, _REASONS)
        by_key = {message.transfer_key: message for message in messages}
        return [_news(step, transfers[step.transfer_key], by_key[step.transfer_key]) for step in steps]

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
        step_error(step, transfer),
    )
