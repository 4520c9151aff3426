"""The two messages that the handlers of single transfers send: to single-position, and to single-notification."""

from domain.combinations import TOPIC_SINGLE_NOTIFICATION, TOPIC_SINGLE_POSITION, Combination
from domain.delivery import Callback
from domain.fspiop_errors import FspiopError
from domain.single_transfers import SingleTransfer, Telling, has_ended, position_request, tellings
from domain.states import TransferState
from domain.transfer_get import TransferView, outcome_view
from handlers.handler import Output
from handlers.news import account_key
from schemas.fspiop.results import fulfilment_text
from schemas.messages import SingleNotification, SinglePosition


def to_single_position(combination: Combination, account_id: int, transfer_key: int, transfer_id: bytes) -> Output:
    """Ask single-position for the move that the transfer's state calls for; the account is the one that will move."""
    message = SinglePosition(combination.type, combination.action, combination.status, transfer_key, transfer_id)
    return Output(TOPIC_SINGLE_POSITION, account_key(account_id), message)


def outcome_news(single: SingleTransfer) -> list[Output]:
    """Tell both sides what the transfer has just come to, each as domain/single_transfers.py says."""
    return [_telling(single, telling) for telling in tellings(single)]


def state_outputs(single: SingleTransfer) -> list[Output]:
    """What a transfer's state calls for: callbacks where it was reserved or has ended, else a move of money."""
    if has_ended(single.state) or single.state is TransferState.RESERVED:
        return outcome_news(single)
    account = single.payee_account if single.state is TransferState.RECEIVED_FULFIL else single.payer_account
    assert account is not None, "a transfer that holds money has both its accounts"
    request = position_request(single.state, single.reason)
    return [to_single_position(request, account, single.transfer_key, single.transfer_id)]


def outcome_answer(combination: Combination, single: SingleTransfer, to: str, request_id: bytes) -> Output:
    """Tell one side the outcome once more, by the hub's PUT, in answer to a request that it sent again."""
    assert has_ended(single.state)
    view = outcome_view(single.state, single.fulfilment, single.completed_timestamp, single.error)
    return view_answer(combination, single.transfer_id, to, view, request_id)


def view_answer(combination: Combination, transfer_id: bytes, to: str, view: TransferView, request_id: bytes) -> Output:
    """Answer a request with what its sender may see: PUT, or PUT /error where that is an error."""
    return _notification(
        combination,
        transfer_id,
        to,
        Callback.PUT if view.error is None else Callback.PUT_ERROR,
        view,
        request_id=request_id,
    )


def refusal(combination: Combination, transfer_id: bytes, to: str, error: FspiopError, request_id: bytes) -> Output:
    """Answer one request with PUT /error; nothing has been written under its id."""
    return view_answer(combination, transfer_id, to, TransferView(error=error), request_id)


def _telling(single: SingleTransfer, telling: Telling) -> Output:
    if telling.callback is Callback.PUT_ERROR:
        view = TransferView(error=telling.error)
    else:
        view = outcome_view(single.state, single.fulfilment, single.completed_timestamp, single.error)
        # Both bodies must say when it ended; what became of the secret is the payer's to know.
        view = view._replace(
            completed_timestamp=single.completed_timestamp,
            fulfilment=None if telling.callback is Callback.PATCH else view.fulfilment,
        )
    return _notification(
        telling.combination,
        single.transfer_id,
        telling.to,
        telling.callback,
        view,
        sent_request_id=telling.sent_request_id,
        not_after_ms=telling.not_after_ms,
    )


def _notification(
    combination: Combination,
    transfer_id: bytes,
    to: str,
    callback: Callback,
    view: TransferView,
    *,
    sent_request_id: bytes | None = None,
    request_id: bytes | None = None,
    not_after_ms: int | None = None,
) -> Output:
    error = view.error or view.cause
    as_sent = sent_request_id is not None
    message = SingleNotification(
        type=combination.type,
        action=combination.action,
        status=combination.status,
        transfer_id=transfer_id,
        to=to,
        callback=callback,
        sent_request_id=sent_request_id,
        transfer_state=None if as_sent else view.state,
        fulfilment=None if as_sent or view.fulfilment is None else fulfilment_text(view.fulfilment),
        completed_timestamp=None if as_sent else view.completed_timestamp,
        error_code=None if as_sent or error is None else error.code,
        error_description=None if as_sent or error is None else error.description,
        request_id=request_id,
        not_after_ms=not_after_ms,
    )
    return Output(TOPIC_SINGLE_NOTIFICATION, transfer_id, message)
