"""What becomes of the payee's answer for one transfer: the decision of fulfil.

Checks, in this order: the transfer is RESERVED (else a repeat, or too late: nothing) · it has not expired (else it is left
to the timeout, which gives the money back) · the payee refused it, or the answer failed before → RECEIVED_ERROR ·
SHA-256(fulfilment) is its condition, else RECEIVED_ERROR with 3100 (D4: position gives the money back and answers the bulk).
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from domain.fspiop_errors import INVALID_FULFILMENT, FspiopError
from domain.prepare import decode_32_bytes
from domain.states import TransferState
from domain.transfers import Transfer


class TransferAnswer(NamedTuple):
    """One answer: a fulfilment; or an error, `refused` where it was the payee's own."""

    transfer_key: int
    fulfilment: str | None
    error: FspiopError | None
    refused: bool


class FulfilStep(NamedTuple):
    """RESERVED becomes RECEIVED_FULFIL (with the 32 bytes) or RECEIVED_ERROR; `account` is the one position will move."""

    transfer_key: int
    to_state: TransferState
    account: int
    fulfilment: bytes | None = None
    error: FspiopError | None = None
    refused: bool = False


def decide_fulfil(
    answers: Iterable[TransferAnswer], transfers: Mapping[int, Transfer], now_ms: int
) -> list[FulfilStep]:
    """A step for every answer that still has an effect; the first answer for a transfer is the one that counts."""
    steps: dict[int, FulfilStep] = {}
    for answer in answers:
        transfer = transfers.get(answer.transfer_key)
        if (
            transfer is None
            or transfer.state is not TransferState.RESERVED
            or transfer.expiration_ms <= now_ms
            or answer.transfer_key in steps
        ):
            continue
        steps[answer.transfer_key] = _step(answer, transfer)
    return list(steps.values())


def _step(answer: TransferAnswer, transfer: Transfer) -> FulfilStep:
    assert transfer.payer_account is not None
    assert transfer.payee_account is not None
    if answer.error is not None:
        return FulfilStep(
            answer.transfer_key,
            TransferState.RECEIVED_ERROR,
            transfer.payer_account,
            error=answer.error,
            refused=answer.refused,
        )
    preimage = None if answer.fulfilment is None else decode_32_bytes(answer.fulfilment)
    if preimage is None or hashlib.sha256(preimage).digest() != transfer.condition:
        return FulfilStep(
            answer.transfer_key, TransferState.RECEIVED_ERROR, transfer.payer_account, error=INVALID_FULFILMENT
        )
    return FulfilStep(answer.transfer_key, TransferState.RECEIVED_FULFIL, transfer.payee_account, fulfilment=preimage)
