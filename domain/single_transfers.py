"""A single transfer as it stands, and who is to be told what of it: a function of its rows, like everything it calls for.

    state              reason            to the payer                          to the payee
    RESERVED           prepare           –                                     the payer's POST, as it was sent
    INVALID, ABORTED_REJECTED, EXPIRED_PREPARED   PUT /error with the error    –
    COMMITTED          commit            the payee's PUT, as it was sent       –
    COMMITTED          reserve           PUT COMMITTED, by the hub             PATCH COMMITTED
    ABORTED_ERROR      abort             the payee's PUT /error, as it was sent –
    ABORTED_ERROR      abort-validation  PUT /error 3100                       –
    ABORTED_ERROR      reserved-aborted  PUT /error 3100                       PATCH ABORTED
    EXPIRED_RESERVED   timeout-reserved  PUT /error 3303                       PUT /error 3303

What an FSP said reaches the other side unchanged, because it is signed end to end; the hub is the source only of what the
hub itself says (reference §11.22–24). A payee that answered RESERVED asked to be told the outcome, hence PATCH.
"""

from typing import NamedTuple

from domain.combinations import (
    SINGLE_ABORTED,
    SINGLE_ABORTED_VALIDATION,
    SINGLE_COMMITTED,
    SINGLE_EXPIRED,
    SINGLE_FORWARD,
    SINGLE_NOT_RESERVED,
    SINGLE_POSITION_ABORT,
    SINGLE_POSITION_ABORT_VALIDATION,
    SINGLE_POSITION_COMMIT,
    SINGLE_POSITION_PREPARE,
    SINGLE_POSITION_RESERVE,
    SINGLE_POSITION_RESERVED_ABORTED,
    SINGLE_POSITION_TIMEOUT,
    SINGLE_PREPARE_REFUSED,
    SINGLE_RELEASED,
    SINGLE_RESERVED_ABORTED,
    SINGLE_RESERVED_COMMITTED,
    Combination,
)
from domain.delivery import Callback
from domain.fspiop_errors import TRANSFER_EXPIRED, FspiopError
from domain.states import TRANSFER_TRANSITIONS, TransferState


class SingleTransfer(NamedTuple):
    """A single transfer with its current state, and the reason and error of the step that led there.

    The request ids name the POST, and the payee's accepted answer if there is one; `fulfilment` is the 32 bytes of a good
    one; the accounts are the POSITION accounts of payer and payee, None only where the transfer is INVALID.
    """

    transfer_key: int
    transfer_id: bytes
    hash: bytes
    payer_fsp: str
    payee_fsp: str
    payer_account: int | None
    payee_account: int | None
    condition: bytes | None
    expiration_ms: int
    request_id: bytes
    state: TransferState
    reason: str
    error: FspiopError | None
    fulfil_request_id: bytes | None
    fulfil_hash: bytes | None
    completed_timestamp: str | None
    fulfilment: bytes | None


class Telling(NamedTuple):
    """`to` is told by this callback: with `sent_request_id` another FSP's request as it was sent, else what the hub says."""

    combination: Combination
    to: str
    callback: Callback
    sent_request_id: bytes | None = None
    error: FspiopError | None = None
    not_after_ms: int | None = None


# The reasons of a fulfil step: what the payee said, and whether it held.
REASON_COMMIT = SINGLE_POSITION_COMMIT.action
REASON_RESERVE = SINGLE_POSITION_RESERVE.action
REASON_ABORT = SINGLE_POSITION_ABORT.action
REASON_ABORT_VALIDATION = SINGLE_POSITION_ABORT_VALIDATION.action
REASON_RESERVED_ABORTED = SINGLE_POSITION_RESERVED_ABORTED.action

_POSITION = {
    REASON_COMMIT: SINGLE_POSITION_COMMIT,
    REASON_RESERVE: SINGLE_POSITION_RESERVE,
    REASON_ABORT: SINGLE_POSITION_ABORT,
    REASON_ABORT_VALIDATION: SINGLE_POSITION_ABORT_VALIDATION,
    REASON_RESERVED_ABORTED: SINGLE_POSITION_RESERVED_ABORTED,
}

# A transfer that was never RESERVED was never forwarded: its payee knows nothing of it.
NEVER_FORWARDED = frozenset(
    {
        TransferState.RECEIVED_PREPARE,
        TransferState.INVALID,
        TransferState.ABORTED_REJECTED,
        TransferState.EXPIRED_PREPARED,
    }
)


def has_ended(state: TransferState) -> bool:
    return not TRANSFER_TRANSITIONS[state]


def position_request(state: TransferState, reason: str) -> Combination:
    """What position is asked for by a transfer in a state from which only position leads on."""
    match state:
        case TransferState.RECEIVED_PREPARE:
            return SINGLE_POSITION_PREPARE
        case TransferState.RESERVED_TIMEOUT:
            return SINGLE_POSITION_TIMEOUT
        case TransferState.RECEIVED_FULFIL | TransferState.RECEIVED_ERROR:
            return _POSITION[reason]
        case _:
            raise AssertionError(f"no money is on its way in a transfer that is {state}")


def tellings(single: SingleTransfer) -> list[Telling]:
    """Who is told what of a transfer that has just come to its state; see the module's docstring."""
    payer, payee = single.payer_fsp, single.payee_fsp
    match single.state:
        case TransferState.RESERVED:
            return [Telling(SINGLE_FORWARD, payee, Callback.POST, single.request_id, not_after_ms=single.expiration_ms)]
        case TransferState.INVALID:
            return [Telling(SINGLE_PREPARE_REFUSED, payer, Callback.PUT_ERROR, error=single.error)]
        case TransferState.ABORTED_REJECTED:
            return [Telling(SINGLE_NOT_RESERVED, payer, Callback.PUT_ERROR, error=single.error)]
        case TransferState.EXPIRED_PREPARED:
            return [Telling(SINGLE_EXPIRED, payer, Callback.PUT_ERROR, error=TRANSFER_EXPIRED)]
        case TransferState.EXPIRED_RESERVED:
            return [Telling(SINGLE_RELEASED, to, Callback.PUT_ERROR, error=TRANSFER_EXPIRED) for to in (payer, payee)]
        case TransferState.COMMITTED if single.reason == REASON_RESERVE:
            return [
                Telling(SINGLE_RESERVED_COMMITTED, payer, Callback.PUT),
                Telling(SINGLE_RESERVED_COMMITTED, payee, Callback.PATCH),
            ]
        case TransferState.COMMITTED:
            return [Telling(SINGLE_COMMITTED, payer, Callback.PUT, single.fulfil_request_id)]
        case TransferState.ABORTED_ERROR:
            return _tellings_of_an_abort(single)
        case _:
            return []


def _tellings_of_an_abort(single: SingleTransfer) -> list[Telling]:
    payer, payee = single.payer_fsp, single.payee_fsp
    if single.reason == REASON_ABORT:
        return [Telling(SINGLE_ABORTED, payer, Callback.PUT_ERROR, single.fulfil_request_id)]
    if single.reason == REASON_RESERVED_ABORTED:
        return [
            Telling(SINGLE_RESERVED_ABORTED, payer, Callback.PUT_ERROR, error=single.error),
            Telling(SINGLE_RESERVED_ABORTED, payee, Callback.PATCH, error=single.error),
        ]
    return [Telling(SINGLE_ABORTED_VALIDATION, payer, Callback.PUT_ERROR, error=single.error)]
