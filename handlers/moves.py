"""Moves of money: one batch of requests for them becomes steps and new positions, under the locks of the accounts.

What position and single-position have in common, and the only place where positions change in the pipeline. The accounts
(POSITION and SETTLEMENT) are locked in id order in a statement of their own; what is decided on is read after it. A
transfer's step is keyed by the state it leaves, so a repeat and a late message find another state and do nothing (D3), and
of two that race one rolls back.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from db.clock import now_ms
from db.positions import lock_positions_with_cover, read_positions, write_positions
from db.transfers import TransferStateChange, insert_transfer_steps, legs_of, transfers_by_key
from domain.fspiop_errors import TRANSFER_EXPIRED, FspiopError
from domain.position import Move, Step, decide_positions
from domain.transfers import Transfer


def make_moves(
    tx: Connection, requests: Sequence[tuple[int, Move]], reasons: Mapping[Move, str]
) -> tuple[Sequence[Step], Mapping[int, Transfer]]:
    """Make the moves that these (transfer key, move) ask for; returns the steps, and the transfers as they were before.

    `reasons` are written into the steps; an abort and a commit of a single transfer keep the reason of the step before
    instead (they are not in it), so that what they answer can be derived again.
    """
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
        rows = [_step_row(step, transfers[step.transfer_key], reasons) for step in decision.steps]
        insert_transfer_steps(tx, rows)
    if decision.positions:
        write_positions(tx, decision.positions)
    return decision.steps, transfers


def step_error(step: Step, transfer: Transfer) -> FspiopError | None:
    """Why the transfer failed, if this step says that it did."""
    match step.move:
        case Move.ABORT:
            return transfer.error
        case Move.TIMEOUT:
            return TRANSFER_EXPIRED
        case _:
            return step.error


def _step_row(step: Step, transfer: Transfer, reasons: Mapping[Move, str]) -> TransferStateChange:
    return TransferStateChange(
        step.transfer_key,
        step.from_state,
        step.to_state,
        reasons.get(step.move, transfer.reason),
        position=step.position,
        error=step_error(step, transfer),
    )
