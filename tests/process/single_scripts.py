"""Single transfers whose end is known from the way they are built, posted beside the bulks of a set.

committed   the payee says COMMITTED, and the payer gets its PUT as it was sent
reserved    the payee says RESERVED, the payer gets the hub's PUT, the payee a PATCH
refused     the payee sends PUT /error, and the payer gets it as it was sent
wrong       the fulfilment does not fit: PUT /error by the hub
uncovered   more than the cover: never forwarded
silent      the payee says nothing, and time runs out
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from domain.states import TransferState
from operations.simulated_fsp import PayeeBehaviour
from operations.simulated_transfer import Transfer
from tests.process.bulk_scripts import AMOUNT, EXPIRES_IN_MS, SILENT_EXPIRES_IN_MS

_RESERVED = (TransferState.RECEIVED_PREPARE, TransferState.RESERVED)
_COMMITTED = (*_RESERVED, TransferState.RECEIVED_FULFIL, TransferState.COMMITTED)
_ABORTED = (*_RESERVED, TransferState.RECEIVED_ERROR, TransferState.ABORTED_ERROR)


@dataclass(frozen=True)
class SingleScript:
    """One kind of single transfer; `payer` and `payee` are the callbacks that each gets, in order."""

    name: str
    states: tuple[TransferState, ...]
    payer: tuple[str, ...]
    payee: tuple[str, ...]
    behaviour: PayeeBehaviour = field(default_factory=PayeeBehaviour)
    amount: str = str(AMOUNT)
    expires_in_ms: int = EXPIRES_IN_MS

    @property
    def committed(self) -> bool:
        return self.states[-1] is TransferState.COMMITTED


SINGLE_SCRIPTS: Sequence[SingleScript] = (
    SingleScript("committed", _COMMITTED, ("PUT",), ("POST",)),
    SingleScript(
        "reserved", _COMMITTED, ("PUT",), ("POST", "PATCH"), PayeeBehaviour(transfer_state="RESERVED", delay_ms=300)
    ),
    SingleScript("refused", _ABORTED, ("PUT_ERROR",), ("POST",), PayeeBehaviour(answer="error")),
    SingleScript("wrong", _ABORTED, ("PUT_ERROR",), ("POST",), PayeeBehaviour(wrong_fulfilments=1)),
    SingleScript(
        "uncovered",
        (TransferState.RECEIVED_PREPARE, TransferState.ABORTED_REJECTED),
        ("PUT_ERROR",),
        (),
        amount="6000000",
    ),
    SingleScript(
        "silent",
        (*_RESERVED, TransferState.RESERVED_TIMEOUT, TransferState.EXPIRED_RESERVED),
        ("PUT_ERROR",),
        ("POST", "PUT_ERROR"),
        PayeeBehaviour(answer="silent"),
        expires_in_ms=SILENT_EXPIRES_IN_MS,
    ),
)


@dataclass(frozen=True)
class PlayedSingle:
    """A transfer that was posted, what it was to become, and how often its POST had to be repeated."""

    script: SingleScript
    transfer: Transfer
    resends: int


def unfinished_singles(tx: Connection, played: Sequence[PlayedSingle]) -> list[str]:
    """Which of these has not ended, by its transferId."""
    query = text(
        "SELECT t.transfer_id FROM transfer t JOIN transfer_state_change s USING (transfer_key)"
        " WHERE t.transfer_id = ANY(CAST(:ids AS uuid[])) AND s.to_state IN"
        " ('INVALID', 'ABORTED_REJECTED', 'EXPIRED_PREPARED', 'COMMITTED', 'ABORTED_ERROR', 'EXPIRED_RESERVED')"
    )
    ids = [one.transfer.transfer_id for one in played]
    ended = {str(one) for one in tx.execute(query, {"ids": ids}).scalars()}
    return [one for one in ids if one not in ended]


def states_of(tx: Connection, transfer_id: str) -> tuple[str, ...]:
    """The states of a transfer in their order; each step begins where the one before ended."""
    query = text(
        "SELECT s.from_state, s.to_state FROM transfer t JOIN transfer_state_change s USING (transfer_key)"
        " WHERE t.transfer_id = :id"
    )
    steps: Mapping[str, str] = {row[0]: row[1] for row in tx.execute(query, {"id": transfer_id})}
    states, state = [], "-"
    while state in steps:
        state = steps[state]
        states.append(state)
    return tuple(states)
