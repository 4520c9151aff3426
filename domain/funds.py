"""Money that a participant brings in or takes out: what the hub's bank did, and what that does to two accounts.

Signs: a SETTLEMENT account's value falls when money comes in, and the cover is minus that value. The hub's
HUB_RECONCILIATION account is the other side of the bank account.

    recordFundsIn                  - → COMMITTED           SETTLEMENT - amount   HUB_RECONCILIATION + amount
    recordFundsOutPrepareReserve   - → RESERVED            SETTLEMENT + amount   unchanged
    recordFundsOutCommit           RESERVED → COMMITTED    unchanged             HUB_RECONCILIATION - amount
    recordFundsOutAbort            RESERVED → ABORTED      SETTLEMENT - amount   unchanged

Money may go out only as long as the cover that is left still carries the position (what is reserved included), and
nobody takes out more than stands there: what the others owe a participant becomes its own by settlement only. The
machine has no cycle, so a state is left once and the database keys each step by (transfer, from_state), like every
machine here. Amounts are counts of 1/10,000 (D26).
"""

from dataclasses import dataclass
from enum import StrEnum

from domain.fspiop_errors import ErrorCode
from domain.money import DECIMALS_MAX, INTEGER_DIGITS_MAX, format_amount
from domain.states import FUNDS_TRANSITIONS, START, FundsState


class FundsAction(StrEnum):
    """The words of the admin API."""

    IN = "recordFundsIn"
    OUT_PREPARE_RESERVE = "recordFundsOutPrepareReserve"
    OUT_COMMIT = "recordFundsOutCommit"
    OUT_ABORT = "recordFundsOutAbort"


# The first value that no longer fits into 18 integer digits and 4 decimals.
VALUE_END = 10 ** (INTEGER_DIGITS_MAX + DECIMALS_MAX)


@dataclass(frozen=True, slots=True)
class FundsAccounts:
    """The participant and the accounts as they stood under their locks."""

    participant_is_active: bool
    settlement_is_active: bool
    position_value: int
    position_reserved_value: int
    settlement_value: int
    hub_value: int


@dataclass(frozen=True, slots=True)
class FundsRequest:
    """What was asked for, and what makes a repeat of it the same request."""

    account_id: int
    action: FundsAction
    amount: int
    reason: str
    external_reference: str
    extension_list: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FundsStep:
    """The transfer leaves `from_state`, and these are the values of the two accounts afterwards."""

    from_state: str
    to_state: FundsState
    settlement_value: int
    hub_value: int


@dataclass(frozen=True, slots=True)
class FundsRefusal:
    """Why nothing happens."""

    code: ErrorCode
    detail: str


def decide_funds(
    request: FundsRequest, seen: FundsRequest | None, accounts: FundsAccounts
) -> FundsStep | FundsRefusal | None:
    """What a recordFundsIn or recordFundsOutPrepareReserve leads to; None when it is a repeat of what was done.

    `seen` is the request that was worked on under the same transferId. Checked in this order: seen before (3106 when it
    was another one), participant and account open (3100), the cover left (4001), the room for 18 digits (3100).
    """
    if seen is not None:
        return None if seen == request else FundsRefusal(ErrorCode.MODIFIED_REQUEST, "")
    if not accounts.participant_is_active:
        return FundsRefusal(ErrorCode.VALIDATION_ERROR, "Participant is currently set inactive")
    if not accounts.settlement_is_active:
        return FundsRefusal(ErrorCode.VALIDATION_ERROR, "Account is currently set inactive")
    amount = request.amount
    if request.action is FundsAction.IN:
        step = FundsStep(START, FundsState.COMMITTED, accounts.settlement_value - amount, accounts.hub_value + amount)
    else:
        step = FundsStep(START, FundsState.RESERVED, accounts.settlement_value + amount, accounts.hub_value)
        position = accounts.position_value + accounts.position_reserved_value
        cover_left = -step.settlement_value
        if cover_left < max(position, 0):
            return FundsRefusal(
                ErrorCode.PAYER_INSUFFICIENT_LIQUIDITY,
                f"the cover left, {format_amount(cover_left)}, would be below {format_amount(max(position, 0))}",
            )
    return _within_bounds(step)


def decide_funds_end(
    action: FundsAction, amount: int, state: FundsState, accounts: FundsAccounts
) -> FundsStep | FundsRefusal | None:
    """What a recordFundsOutCommit or recordFundsOutAbort leads to; None when the transfer ended so already."""
    to_state = FundsState.COMMITTED if action is FundsAction.OUT_COMMIT else FundsState.ABORTED
    if state is to_state:
        return None
    if to_state not in FUNDS_TRANSITIONS[state]:
        return FundsRefusal(ErrorCode.VALIDATION_ERROR, f"the transfer is {state} and can no longer be {to_state}")
    if to_state is FundsState.COMMITTED:
        return _within_bounds(FundsStep(state, to_state, accounts.settlement_value, accounts.hub_value - amount))
    return _within_bounds(FundsStep(state, to_state, accounts.settlement_value - amount, accounts.hub_value))


def _within_bounds(step: FundsStep) -> FundsStep | FundsRefusal:
    if max(abs(step.settlement_value), abs(step.hub_value)) >= VALUE_END:
        return FundsRefusal(
            ErrorCode.VALIDATION_ERROR, f"an account would need more than {INTEGER_DIGITS_MAX} digits before the point"
        )
    return step
