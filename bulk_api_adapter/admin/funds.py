"""The acts on funds: money that a participant brings to the hub's bank, or takes out of it in two steps.

Order of each act: participant and account known (3200), in that currency (3100), of type SETTLEMENT (3100) · lock the
participant's POSITION and SETTLEMENT account and the hub's HUB_RECONCILIATION account, in id order, as the position
handler does · read them, and what was done under this transferId before · decide (`domain.funds`) · write.

A repeat of the same request changes nothing and leaves no audit row; the same transferId with another body is 3106. New
money needs an active participant and account; what was reserved may be committed or aborted even after they were closed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine

from bulk_api_adapter.admin.acts import Act, account_not_found, begin_act
from bulk_api_adapter.admin.participants import details_of, hub_accounts
from db import accounts, positions
from db.accounts import HUB_RECONCILIATION, POSITION, SETTLEMENT, AccountDetails
from db.funds import FundsTransfer, add_funds, add_funds_step, read_funds
from domain.fspiop_errors import ErrorCode
from domain.funds import (
    VALUE_END,
    FundsAccounts,
    FundsAction,
    FundsRefusal,
    FundsRequest,
    FundsStep,
    decide_funds,
    decide_funds_end,
)
from domain.money import format_amount
from schemas.fspiop.errors import Refusal


@dataclass(frozen=True, slots=True)
class FundsOrder:
    """What a recordFundsIn or recordFundsOutPrepareReserve says. The amount is a count of 1/10,000.

    Without a currency it is the account's.
    """

    transfer_id: UUID
    amount: int
    currency: str | None = None
    reason: str = ""
    external_reference: str = ""
    extension_list: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class _Locked:
    """The accounts of one act, under their locks."""

    settlement: AccountDetails
    hub: AccountDetails
    facts: FundsAccounts


def funds_in(engine: Engine, name: str, account_id: int, order: FundsOrder, *, actor: str) -> None:
    """Money came in: the cover rises at once."""
    _begin(engine, name, account_id, order, FundsAction.IN, actor)


def funds_out_reserve(engine: Engine, name: str, account_id: int, order: FundsOrder, *, actor: str) -> None:
    """Money is to go out: the cover falls at once; refuses with 4001 when the position needs it."""
    _begin(engine, name, account_id, order, FundsAction.OUT_PREPARE_RESERVE, actor)


def funds_out_commit(
    engine: Engine, name: str, account_id: int, transfer_id: UUID, *, actor: str, reason: str = ""
) -> None:
    """The money went out."""
    _end(engine, name, account_id, transfer_id, FundsAction.OUT_COMMIT, reason, actor)


def funds_out_abort(
    engine: Engine, name: str, account_id: int, transfer_id: UUID, *, actor: str, reason: str = ""
) -> None:
    """The money did not go out: the cover is given back."""
    _end(engine, name, account_id, transfer_id, FundsAction.OUT_ABORT, reason, actor)


def read_funds_transfer(engine: Engine, transfer_id: UUID) -> FundsTransfer | None:
    """What was asked for under a transferId and what has become of it."""
    with engine.connect() as tx:
        return read_funds(tx, transfer_id)


def _begin(engine: Engine, name: str, account_id: int, order: FundsOrder, action: FundsAction, actor: str) -> None:
    if not 0 < order.amount < VALUE_END:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "amount must be more than 0 and have at most 18 digits")
    request = FundsRequest(
        account_id, action, order.amount, order.reason, order.external_reference, tuple(order.extension_list)
    )
    with begin_act(engine, actor=actor, action=action, subject=_subject(name, account_id, order.transfer_id)) as act:
        locked = _lock(act.tx, name, account_id, order.currency)
        known = read_funds(act.tx, order.transfer_id)
        decision = decide_funds(request, known.request if known else None, locked.facts)
        if isinstance(decision, FundsRefusal):
            raise Refusal(decision.code, decision.detail)
        if decision is None:
            return
        if not add_funds(act.tx, order.transfer_id, request, locked.hub.account_id):
            # The same id was used on another account in this very moment, so the requests differ.
            raise Refusal(ErrorCode.MODIFIED_REQUEST)
        _save(act, locked, order.transfer_id, decision, order.reason, order.amount)


def _end(
    engine: Engine, name: str, account_id: int, transfer_id: UUID, action: FundsAction, reason: str, actor: str
) -> None:
    with begin_act(engine, actor=actor, action=action, subject=_subject(name, account_id, transfer_id)) as act:
        locked = _lock(act.tx, name, account_id, None)
        known = read_funds(act.tx, transfer_id)
        if known is None or known.request.account_id != account_id:
            raise Refusal(ErrorCode.ID_NOT_FOUND, f"Transfer {transfer_id} not found")
        if known.request.action is not FundsAction.OUT_PREPARE_RESERVE:
            raise Refusal(ErrorCode.VALIDATION_ERROR, "action does not fit: the transfer is not a funds-out")
        decision = decide_funds_end(action, known.request.amount, known.state, locked.facts)
        if isinstance(decision, FundsRefusal):
            raise Refusal(decision.code, decision.detail)
        if decision is not None:
            _save(act, locked, transfer_id, decision, reason, known.request.amount)


def _subject(name: str, account_id: int, transfer_id: UUID) -> str:
    return f"participants/{name}/accounts/{account_id}/transfers/{transfer_id}"


def _lock(tx: Connection, name: str, account_id: int, currency: str | None) -> _Locked:
    """Find the three accounts, lock them, and read in a statement after it what they hold."""
    of_participant = {account.account_id: account for account in details_of(tx, name).accounts}
    account = of_participant.get(account_id)
    if account is None:
        raise account_not_found(name, str(account_id))
    if currency not in {None, account.currency}:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "The account does not match participant or currency specified")
    if account.ledger_account_type != SETTLEMENT:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "Account is not SETTLEMENT type")
    position_id = _only(of_participant.values(), POSITION, account.currency)
    hub_id = _only(hub_accounts(tx), HUB_RECONCILIATION, account.currency)
    positions.lock_positions(tx, [position_id, account_id, hub_id])
    held = accounts.accounts_by_id(tx, [position_id, account_id, hub_id])
    position, settlement, hub = held[position_id], held[account_id], held[hub_id]
    facts = FundsAccounts(
        participant_is_active=details_of(tx, name).participant.is_active,
        settlement_is_active=settlement.is_active,
        position_value=position.value,
        position_reserved_value=position.reserved_value,
        settlement_value=settlement.value,
        hub_value=hub.value,
    )
    return _Locked(settlement, hub, facts)


def _only(found: Iterable[AccountDetails], type_: str, currency: str) -> int:
    """The id of the one account of a type in a currency; add_participant made sure that there is one."""
    [account_id] = [
        account.account_id for account in found if account.ledger_account_type == type_ and account.currency == currency
    ]
    return account_id


def _save(act: Act, locked: _Locked, transfer_id: UUID, step: FundsStep, reason: str, amount: int) -> None:
    stepped = add_funds_step(act.tx, transfer_id, step, reason)
    assert stepped, "the state was left by somebody who holds no lock"
    positions.write_positions(
        act.tx, {locked.settlement.account_id: step.settlement_value, locked.hub.account_id: step.hub_value}
    )
    act.record(
        before={
            "state": step.from_state,
            "settlement": format_amount(locked.facts.settlement_value),
            "hubReconciliation": format_amount(locked.facts.hub_value),
        },
        after={
            "state": step.to_state,
            "amount": format_amount(amount),
            "settlement": format_amount(step.settlement_value),
            "hubReconciliation": format_amount(step.hub_value),
        },
    )
