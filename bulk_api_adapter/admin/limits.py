"""The acts on limits and positions: how far a participant's position may rise in a currency.

The position handler reads a limit under the locks of the account's positions. So does whoever changes it: what is answered
here holds for every reservation after it (X-35).
"""

from decimal import Decimal

from sqlalchemy import Connection, Engine

from bulk_api_adapter.admin.acts import Act, account_not_found, begin_act, require_currency
from bulk_api_adapter.admin.participants import details_of
from db import accounts, positions
from db.accounts import NET_DEBIT_CAP, POSITION, AccountDetails, Limit
from domain.fspiop_errors import ErrorCode
from domain.funds import VALUE_END
from domain.money import format_amount
from schemas.fspiop.errors import Refusal

ALARM_PERCENTAGE = Decimal(10)


def list_limits(
    engine: Engine, name: str | None = None, *, currency: str | None = None, type_: str | None = None
) -> list[Limit]:
    """A participant's limits, or everybody's; refuses with 3200 when there is no participant of that name."""
    with engine.connect() as tx:
        if name is not None:
            details_of(tx, name)
        return accounts.limits(tx, name=name, currency=currency, type_=type_)


def list_positions(engine: Engine, name: str) -> list[AccountDetails]:
    """A participant's POSITION accounts by currency; refuses with 3200 when there is no participant of that name."""
    with engine.connect() as tx:
        found = [account for account in details_of(tx, name).accounts if account.ledger_account_type == POSITION]
    return sorted(found, key=lambda account: account.currency)


def initial_position_and_limits(
    engine: Engine,
    name: str,
    currency: str,
    net_debit_cap: int,
    *,
    actor: str,
    initial_position: int = 0,
    alarm_percentage: Decimal = ALARM_PERCENTAGE,
) -> None:
    """Set a participant's first limit in a currency and open its accounts; refuses with 2001 when that was done before.

    The amounts are counts of 1/10,000; a position may begin below zero, a cap may not be.
    """
    require_currency(currency)
    _require_cap(net_debit_cap)
    if abs(initial_position) >= VALUE_END:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "initialPosition has too many digits")
    subject = f"participants/{name}/initialPositionAndLimits"
    with begin_act(engine, actor=actor, action="initial_position_and_limits", subject=subject) as act:
        locked = _lock_currency(act, name, currency)
        position = _position_account(locked, name, currency)
        if not accounts.add_limit(act.tx, position.account_id, NET_DEBIT_CAP, net_debit_cap, alarm_percentage):
            raise Refusal(ErrorCode.INTERNAL_SERVER_ERROR, "Participant Limit or Initial Position already set")
        positions.write_positions(act.tx, {position.account_id: initial_position})
        accounts.set_accounts_active(act.tx, [account.account_id for account in locked], is_active=True)
        act.record(
            before=None,
            after={
                "currency": currency,
                "limit": _facts(net_debit_cap, alarm_percentage),
                "initialPosition": format_amount(initial_position),
                "activeAccounts": [account.account_id for account in locked],
            },
        )


def set_limit(
    engine: Engine,
    name: str,
    currency: str,
    net_debit_cap: int,
    *,
    actor: str,
    alarm_percentage: Decimal | None = None,
) -> Limit:
    """Change a participant's net debit cap, a count of 1/10,000; without an alarm percentage that one stays."""
    require_currency(currency)
    _require_cap(net_debit_cap)
    with begin_act(engine, actor=actor, action="set_limit", subject=f"participants/{name}/limits") as act:
        position = _position_account(_lock_currency(act, name, currency), name, currency)
        before = _net_debit_cap(act.tx, name, currency)
        if before is None:
            raise Refusal(ErrorCode.ID_NOT_FOUND, f"Participant {name} has no {NET_DEBIT_CAP} limit in {currency}")
        alarm = before.alarm_percentage if alarm_percentage is None else alarm_percentage
        accounts.set_limit(act.tx, position.account_id, NET_DEBIT_CAP, net_debit_cap, alarm)
        act.record(
            before={"currency": currency, "limit": _facts(before.value, before.alarm_percentage)},
            after={"currency": currency, "limit": _facts(net_debit_cap, alarm)},
        )
    return Limit(name, currency, NET_DEBIT_CAP, net_debit_cap, alarm)


def _require_cap(net_debit_cap: int) -> None:
    if not 0 <= net_debit_cap < VALUE_END:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "limit.value must not be negative and have at most 18 digits")


def _lock_currency(act: Act, name: str, currency: str) -> list[AccountDetails]:
    """The participant's accounts in a currency, as they stand once nobody else moves money on them."""
    ids = [account.account_id for account in details_of(act.tx, name).accounts if account.currency == currency]
    positions.lock_positions(act.tx, ids)
    return list(accounts.accounts_by_id(act.tx, ids).values())


def _position_account(locked: list[AccountDetails], name: str, currency: str) -> AccountDetails:
    for account in locked:
        if account.ledger_account_type == POSITION:
            return account
    raise account_not_found(name, f"in {currency}")


def _net_debit_cap(tx: Connection, name: str, currency: str) -> Limit | None:
    found = accounts.limits(tx, name=name, currency=currency, type_=NET_DEBIT_CAP)
    return found[0] if found else None


def _facts(value: int, alarm_percentage: Decimal) -> dict[str, str]:
    return {"type": NET_DEBIT_CAP, "value": format_amount(value), "alarmPercentage": str(alarm_percentage)}
