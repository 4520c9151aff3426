"""Who may see what of a transfer: the decision of transfer-get (reference §11.6, §11.24, §11.26).

nothing stands under the id   RECEIVED to the one whose POST lies in the object store unread; else 3208
the payer                     its state, with the fulfilment, or with the error as the extension `cause`
the payee                     the same, once the transfer was forwarded to it; before that 3208
funds in and out              their state, to the participant whose account they move; to others 3208
anybody else                  3000
"""

from typing import NamedTuple

from domain.fspiop_errors import NOT_A_PARTY, TRANSFER_NOT_FOUND, FspiopError
from domain.states import TRANSFER_API_STATES, FundsState, TransferState


class TransferToShow(NamedTuple):
    """A transfer, single or an item of a bulk; `was_forwarded` says whether its payee ever heard of it."""

    payer_fsp: str
    payee_fsp: str
    state: TransferState
    error: FspiopError | None
    fulfilment: bytes | None
    completed_timestamp: str | None
    was_forwarded: bool


class FundsToShow(NamedTuple):
    """Funds in or out, and the participant whose account they move."""

    participant: str
    state: FundsState


class TransferView(NamedTuple):
    """What the asker is told: an error by PUT /error, or a state (as FSPIOP calls it) by PUT.

    The fulfilment is there only of a committed transfer, `cause` only of an aborted one.
    """

    error: FspiopError | None = None
    state: str | None = None
    fulfilment: bytes | None = None
    completed_timestamp: str | None = None
    cause: FspiopError | None = None


def decide_transfer_get(
    source: str, transfer: TransferToShow | None, funds: FundsToShow | None, *, unread_request_of_source: bool
) -> TransferView:
    """What `source` is shown. `unread_request_of_source`: its POST is stored, and single-prepare has not come to it yet."""
    if transfer is not None:
        return _view_of(source, transfer)
    if funds is not None and funds.participant == source:
        return TransferView(state=funds.state.value)
    if unread_request_of_source:
        return TransferView(state=TRANSFER_API_STATES[TransferState.RECEIVED_PREPARE])
    return TransferView(error=TRANSFER_NOT_FOUND)


def _view_of(source: str, transfer: TransferToShow) -> TransferView:
    if source not in (transfer.payer_fsp, transfer.payee_fsp):
        return TransferView(error=NOT_A_PARTY)
    if source == transfer.payee_fsp and not transfer.was_forwarded:
        return TransferView(error=TRANSFER_NOT_FOUND)
    return outcome_view(transfer.state, transfer.fulfilment, transfer.completed_timestamp, transfer.error)


def outcome_view(
    state: TransferState, fulfilment: bytes | None, completed_timestamp: str | None, error: FspiopError | None
) -> TransferView:
    """A transfer as its parties see it; a fulfilment is a secret until the transfer is committed."""
    shown = TRANSFER_API_STATES[state]
    committed = state is TransferState.COMMITTED
    return TransferView(
        state=shown,
        fulfilment=fulfilment if committed else None,
        completed_timestamp=completed_timestamp if committed else None,
        cause=error if shown == "ABORTED" else None,
    )
