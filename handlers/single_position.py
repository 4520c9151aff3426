"""single-position: the money of single transfers is reserved, committed or given back, under the locks of the accounts.

Consumes    topic-single-transfer-position: SinglePosition (prepare, commit, reserve, abort, abort-validation,
            reserved-aborted, timeout-reserved)
Refuses     a prepare that has expired (3303), or that cover (4001) or net debit cap (4200) forbid
Changes     one step per transfer with the position after it, and the positions of the accounts (handlers/moves.py); the open
            expiration of what has ended goes
Emits       SingleNotification: to payer and payee what domain/single_transfers.py says of the state that was reached

The accounts are those of the bulks, so a single transfer and a bulk of one payer wait for each other's locks, and both see
one position. A lane of its own means a queue of its own, no more (BULK-133).
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.expirations import end_expirations
from db.singles import singles_by_key
from db.transfers import TransferStateChange, insert_transfer_steps
from domain.combinations import (
    SINGLE_POSITION_PREPARE,
    SINGLE_POSITION_TIMEOUT,
    TOPIC_SINGLE_POSITION,
    require_all_known,
)
from domain.fspiop_errors import ErrorCode, fspiop_error
from domain.identifiers import bulk_key_of
from domain.position import Move
from domain.single_transfers import (
    REASON_ABORT,
    REASON_ABORT_VALIDATION,
    REASON_COMMIT,
    REASON_RESERVE,
    REASON_RESERVED_ABORTED,
    has_ended,
)
from domain.states import TransferState
from handlers.handler import Crash, Output
from handlers.moves import make_moves
from handlers.single_news import outcome_news
from schemas.messages import SinglePosition

_MOVES = {
    SINGLE_POSITION_PREPARE.action: Move.PREPARE,
    REASON_COMMIT: Move.COMMIT,
    REASON_RESERVE: Move.COMMIT,
    REASON_ABORT: Move.ABORT,
    REASON_ABORT_VALIDATION: Move.ABORT,
    REASON_RESERVED_ABORTED: Move.ABORT,
    SINGLE_POSITION_TIMEOUT.action: Move.TIMEOUT,
}
# A commit and an abort keep the reason of the step before: what the payee said decides who is told what.
_REASONS = {Move.PREPARE: SINGLE_POSITION_PREPARE.action, Move.TIMEOUT: SINGLE_POSITION_TIMEOUT.action}


class SinglePositionHandler:
    """See the module's docstring."""

    name = "single-position"
    topic = TOPIC_SINGLE_POSITION
    message = SinglePosition

    def weight(self, message: SinglePosition) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[SinglePosition]) -> list[Output]:
        require_all_known(self.topic, messages)
        requests = [(message.transfer_key, _MOVES[message.action]) for message in messages]
        steps, _ = make_moves(tx, requests, _REASONS)
        return _news(tx, [step.transfer_key for step in steps])

    def give_up(self, tx: Connection, message: SinglePosition, reason: str) -> list[Output]:
        """A transfer that holds no money yet is rejected with 2001; with money on its way nobody may give up."""
        if _MOVES.get(message.action) is not Move.PREPARE:
            raise Crash(f"single-position: money is on its way in transfer {message.transfer_key}: {reason}")
        single = singles_by_key(tx, [message.transfer_key]).get(message.transfer_key)
        if single is None or single.state is not TransferState.RECEIVED_PREPARE:
            return []
        error = fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, "the transfer could not be reserved")
        step = TransferStateChange(
            message.transfer_key, single.state, TransferState.ABORTED_REJECTED, message.action, error=error
        )
        insert_transfer_steps(tx, [step])
        return _news(tx, [message.transfer_key])


def _news(tx: Connection, keys: Sequence[int]) -> list[Output]:
    """Tell the parties what these transfers have come to; those that have ended are due no more."""
    if not keys:
        return []
    singles = singles_by_key(tx, keys)
    ended = [bulk_key_of(key) for key in keys if has_ended(singles[key].state)]
    if ended:
        end_expirations(tx, ended)
    return [output for key in keys for output in outcome_news(singles[key])]
