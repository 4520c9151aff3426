"""fulfil: the payee's answer for one transfer is checked against its condition.

Consumes    topic-transfer-fulfil: TransferFulfil (#19 an answer, bulk-abort success: refused, bulk-abort error: failed)
Refuses     as domain/fulfil.py says, in that order
Changes     RESERVED becomes RECEIVED_FULFIL with the fulfilment, or RECEIVED_ERROR with the error
Emits       TransferPosition: #17 by the payee's account, or reject (the payee refused it) and bulk-abort (a wrong or missing
            fulfilment, omitted, invalid as a whole) by the payer's

A fulfil and a timeout that want the same transfer race on the key (transfer, RESERVED); the loser tries again and finds the
other's state. A transfer that has expired is left to the timeout.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.clock import now_ms
from db.transfers import TransferStateChange, insert_transfer_steps, transfers_by_key
from domain.combinations import (
    ERROR,
    ITEM_FULFIL,
    POSITION_ABORT,
    POSITION_COMMIT,
    POSITION_REJECT,
    TOPIC_TRANSFER_FULFIL,
    Combination,
    require_all_known,
)
from domain.fspiop_errors import FspiopError
from domain.fulfil import FulfilStep, TransferAnswer, decide_fulfil
from domain.states import TransferState
from handlers.handler import Crash, Output
from handlers.news import to_position
from schemas.messages import TransferFulfil


class FulfilHandler:
    """See the module's docstring."""

    name = "fulfil"
    topic = TOPIC_TRANSFER_FULFIL
    message = TransferFulfil

    def weight(self, message: TransferFulfil) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[TransferFulfil]) -> list[Output]:
        require_all_known(self.topic, messages)
        transfers = transfers_by_key(tx, [message.transfer_key for message in messages])
        steps = decide_fulfil([_answer(message) for message in messages], transfers, now_ms(tx))
        if steps:
            insert_transfer_steps(tx, [_step_row(step) for step in steps])
        by_key = {message.transfer_key: message for message in messages}
        return [_to_position(step, by_key[step.transfer_key]) for step in steps]

    def give_up(self, tx: Connection, message: TransferFulfil, reason: str) -> list[Output]:
        """A reserved transfer whose answer cannot be worked on ends as RECEIVED_ERROR, and its money goes back."""
        row = transfers_by_key(tx, [message.transfer_key]).get(message.transfer_key)
        if row is None or row.state is not TransferState.RESERVED:
            if row is not None and row.state in (TransferState.RECEIVED_FULFIL, TransferState.RECEIVED_ERROR):
                raise Crash(f"fulfil: money is on its way in transfer {message.transfer_key}: {reason}")
            return []
        assert row.payer_account is not None
        error = FspiopError("2001", "Internal server error - the answer for this transfer could not be worked on")
        step = FulfilStep(message.transfer_key, TransferState.RECEIVED_ERROR, row.payer_account, error=error)
        insert_transfer_steps(tx, [_step_row(step)])
        return [_to_position(step, message)]


def _answer(message: TransferFulfil) -> TransferAnswer:
    error = None
    if message.error_code is not None and message.error_description is not None:
        error = FspiopError(message.error_code, message.error_description)
    refused = message.action != ITEM_FULFIL.action and message.status != ERROR
    return TransferAnswer(message.transfer_key, message.fulfilment, error, refused)


def _combination(step: FulfilStep) -> Combination:
    if step.to_state is TransferState.RECEIVED_FULFIL:
        return POSITION_COMMIT
    return POSITION_REJECT if step.refused else POSITION_ABORT


def _step_row(step: FulfilStep) -> TransferStateChange:
    return TransferStateChange(
        step.transfer_key,
        TransferState.RESERVED,
        step.to_state,
        _combination(step).action,
        fulfilment=step.fulfilment,
        error=step.error,
    )


def _to_position(step: FulfilStep, message: TransferFulfil) -> Output:
    return to_position(
        _combination(step), step.account, message.bulk_transfer_id, step.transfer_key, message.transfer_id
    )
