"""Who may have how much of whose money: the decision of position, and the only place where positions change.

Signs: a payer's position rises when money is reserved and falls when it is given back; a payee's falls when a transfer is
committed. A SETTLEMENT account's value falls when money comes in, so the cover is minus that value.

    prepare   reserve iff position + reserved + amount ≤ cover (else 4001) and ≤ net debit cap (else 4200)
    commit    the payee's position falls by the amount
    reject, abort, timeout   the payer's position falls by the amount

Within a batch the credits come first, so that what is given back can be used at once; each move sees the position that the
moves before it left (D1), and each transfer moves at most once, because a state is left at most once (D3). Amounts are
counts of 1/10,000 (D26).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from domain.fspiop_errors import TRANSFER_EXPIRED, ErrorCode, FspiopError, fspiop_error
from domain.states import ItemState, TransferState
from domain.transfers import Transfer


class Move(Enum):
    """What position can be asked for; the value is the state that the transfer must be in."""

    PREPARE = TransferState.RECEIVED_PREPARE
    COMMIT = TransferState.RECEIVED_FULFIL
    ABORT = TransferState.RECEIVED_ERROR
    TIMEOUT = TransferState.RESERVED_TIMEOUT


@dataclass(frozen=True, slots=True)
class AccountPosition:
    """One POSITION account as it stood under its lock. `cover` is minus the value of its SETTLEMENT account.

    `net_debit_cap` is None where none was ever set: then nothing may be reserved.
    """

    account_id: int
    value: int
    reserved_value: int
    cover: int
    net_debit_cap: int | None


class Step(NamedTuple):
    """A transfer leaves `from_state`; `position` is what its account holds afterwards, None where no money moved."""

    transfer_key: int
    move: Move
    from_state: TransferState
    to_state: TransferState
    account_id: int
    position: int | None
    error: FspiopError | None = None


@dataclass(frozen=True, slots=True)
class PositionDecision:
    """The steps in the order in which they were made, and what every account that money moved on holds afterwards."""

    steps: list[Step]
    positions: dict[int, int]


NOT_WAITING = fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, "the bulk no longer waits for this transfer")
NO_LIQUIDITY = fspiop_error(ErrorCode.PAYER_INSUFFICIENT_LIQUIDITY)
OVER_LIMIT = fspiop_error(ErrorCode.PAYER_LIMIT_ERROR)


def decide_positions(
    requests: Iterable[tuple[int, Move]],
    transfers: Mapping[int, Transfer],
    accounts: Mapping[int, AccountPosition],
    now_ms: int,
) -> PositionDecision:
    """The steps that a batch of (transfer key, move) leads to.

    A request whose transfer is not in the state that its move needs is a repeat, or came too late: nothing happens.
    """
    positions = {account_id: account.value for account_id, account in accounts.items()}
    steps: list[Step] = []
    done: set[int] = set()
    debits: list[Transfer] = []
    for key, move in requests:
        transfer = transfers.get(key)
        if transfer is None or transfer.state is not move.value or key in done:
            continue
        done.add(key)
        if move is Move.PREPARE:
            debits.append(transfer)
        else:
            steps.append(_credit(transfer, move, positions))
    steps += [_debit(transfer, accounts[_leg(transfer.payer_account)], positions, now_ms) for transfer in debits]
    moved = {step.account_id: step.position for step in steps if step.position is not None}
    return PositionDecision(steps, moved)


def _leg(account_id: int | None) -> int:
    assert account_id is not None, "only an INVALID transfer lacks an account, and no move is made of it"
    return account_id


def _credit(transfer: Transfer, move: Move, positions: dict[int, int]) -> Step:
    match move:
        case Move.COMMIT:
            account_id, to_state = _leg(transfer.payee_account), TransferState.COMMITTED
        case Move.ABORT:
            account_id, to_state = _leg(transfer.payer_account), TransferState.ABORTED_ERROR
        case _:
            account_id, to_state = _leg(transfer.payer_account), TransferState.EXPIRED_RESERVED
    positions[account_id] -= transfer.amount
    return Step(transfer.transfer_key, move, transfer.state, to_state, account_id, positions[account_id])


def _debit(transfer: Transfer, account: AccountPosition, positions: dict[int, int], now_ms: int) -> Step:
    error = _refusal(transfer, account, positions[account.account_id], now_ms)
    if error is not None:
        return Step(
            transfer.transfer_key,
            Move.PREPARE,
            transfer.state,
            TransferState.ABORTED_REJECTED,
            account.account_id,
            None,
            error,
        )
    positions[account.account_id] += transfer.amount
    return Step(
        transfer.transfer_key,
        Move.PREPARE,
        transfer.state,
        TransferState.RESERVED,
        account.account_id,
        positions[account.account_id],
    )


def _refusal(transfer: Transfer, account: AccountPosition, position: int, now_ms: int) -> FspiopError | None:
    if transfer.item_state not in (None, ItemState.RECEIVED):
        return NOT_WAITING
    if transfer.expiration_ms <= now_ms:
        return TRANSFER_EXPIRED
    effective = position + account.reserved_value
    if effective + transfer.amount > account.cover:
        return NO_LIQUIDITY
    if account.net_debit_cap is None or effective + transfer.amount > account.net_debit_cap:
        return OVER_LIMIT
    return None
