"""single-fulfil: the payee's answer to a single transfer is checked against its condition.

Consumes    topic-single-transfer-fulfil: SingleFulfil (commit, reserve: PUT; abort: PUT /error)
Refuses     as domain/single_fulfil.py says, in that order
Changes     RESERVED becomes RECEIVED_FULFIL with the fulfilment, or RECEIVED_ERROR with the error; the answer is kept
Emits       SinglePosition: commit or reserve by the payee's account, abort, abort-validation or reserved-aborted by the
            payer's; or an answer to the payee: PUT /error, or the outcome once more

A fulfil and a timeout that want the same transfer race on the key (transfer, RESERVED); the loser tries again and finds the
other's state.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.clock import now_ms
from db.participants import participants_by_name
from db.singles import SingleFulfilment, insert_single_fulfilments, singles_by_id
from db.transfers import TransferStateChange, insert_transfer_steps
from domain.combinations import (
    SINGLE_FULFIL_DUPLICATE,
    SINGLE_FULFIL_MODIFIED,
    SINGLE_FULFIL_REFUSED,
    SINGLE_RESERVE,
    TOPIC_SINGLE_FULFIL,
    require_all_known,
)
from domain.fspiop_errors import MODIFIED_REQUEST, ErrorCode, FspiopError, fspiop_error
from domain.single_fulfil import AnswerVerdict, JudgedAnswer, SingleFulfilFacts, decide_single_fulfil
from domain.single_transfers import (
    REASON_ABORT_VALIDATION,
    REASON_RESERVED_ABORTED,
    SingleTransfer,
    position_request,
)
from domain.states import TransferState
from handlers.handler import Crash, Output
from handlers.single_news import outcome_answer, refusal, to_single_position
from schemas.fspiop.datetimes import format_datetime
from schemas.messages import SingleFulfil


class SingleFulfilHandler:
    """See the module's docstring."""

    name = "single-fulfil"
    topic = TOPIC_SINGLE_FULFIL
    message = SingleFulfil

    def weight(self, message: SingleFulfil) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[SingleFulfil]) -> list[Output]:
        require_all_known(self.topic, messages)
        senders = {message.source for message in messages}
        facts = SingleFulfilFacts(
            participants={name: one.is_active for name, one in participants_by_name(tx, senders).items()},
            singles=singles_by_id(tx, [message.transfer_id for message in messages]),
            now_ms=now_ms(tx),
        )
        judged = decide_single_fulfil(messages, facts)
        accepted = [
            (one, message) for one, message in zip(judged, messages, strict=True) if one.verdict is AnswerVerdict.ACCEPT
        ]
        if accepted:
            insert_single_fulfilments(tx, [_fulfilment(one, message) for one, message in accepted])
            insert_transfer_steps(tx, [_step(one) for one, _ in accepted])
        return [output for one in judged for output in _outputs(one)]

    def give_up(self, tx: Connection, message: SingleFulfil, reason: str) -> list[Output]:
        """A reserved transfer whose own payee's answer cannot be worked on is aborted, and its money goes back."""
        single = singles_by_id(tx, [message.transfer_id]).get(message.transfer_id)
        if single is None or single.payee_fsp != message.source:
            return []
        if single.state in (TransferState.RECEIVED_FULFIL, TransferState.RECEIVED_ERROR):
            raise Crash(f"single-fulfil: money is on its way in transfer {single.transfer_key}: {reason}")
        if single.state is not TransferState.RESERVED:
            return []
        error = fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, "the answer to this transfer could not be worked on")
        is_reserve = message.action == SINGLE_RESERVE.action
        judged = JudgedAnswer(
            message,
            AnswerVerdict.ACCEPT,
            error=error,
            single=single,
            to_state=TransferState.RECEIVED_ERROR,
            reason=REASON_RESERVED_ABORTED if is_reserve else REASON_ABORT_VALIDATION,
        )
        insert_single_fulfilments(tx, [_fulfilment(judged, message)])
        insert_transfer_steps(tx, [_step(judged)])
        return _outputs(judged)


def _fulfilment(judged: JudgedAnswer, message: SingleFulfil) -> SingleFulfilment:
    assert judged.single is not None
    # A payee that did not say when it completed the transfer did so, for all that is known, when its answer came.
    completed = message.completed_timestamp or format_datetime(message.received_at_ms)
    return SingleFulfilment(
        judged.single.transfer_key, message.request_id, message.hash, completed, message.received_at_ms
    )


def _step(judged: JudgedAnswer) -> TransferStateChange:
    assert judged.single is not None
    assert judged.to_state is not None
    return TransferStateChange(
        judged.single.transfer_key,
        TransferState.RESERVED,
        judged.to_state,
        judged.reason,
        fulfilment=judged.fulfilment,
        error=judged.error,
    )


def _outputs(judged: JudgedAnswer) -> list[Output]:
    answer = judged.answer
    match judged.verdict:
        case AnswerVerdict.IGNORE:
            return []
        case AnswerVerdict.REFUSE:
            return [_refusal(judged, judged.error)]
        case AnswerVerdict.RESEND:
            assert judged.single is not None
            return [outcome_answer(SINGLE_FULFIL_DUPLICATE, judged.single, answer.source, answer.request_id)]
        case AnswerVerdict.ACCEPT:
            assert judged.single is not None
            assert judged.to_state is not None
            return [_to_position(judged.single, judged.to_state, judged.reason)]


def _refusal(judged: JudgedAnswer, error: FspiopError | None) -> Output:
    assert error is not None
    answer = judged.answer
    combination = SINGLE_FULFIL_MODIFIED if error == MODIFIED_REQUEST else SINGLE_FULFIL_REFUSED
    return refusal(combination, answer.transfer_id, answer.source, error, answer.request_id)


def _to_position(single: SingleTransfer, state: TransferState, reason: str) -> Output:
    account = single.payee_account if state is TransferState.RECEIVED_FULFIL else single.payer_account
    assert account is not None, "a transfer that holds money has both its accounts"
    return to_single_position(position_request(state, reason), account, single.transfer_key, single.transfer_id)
