"""Accounts, their positions and limits, one by one: the rows behind the admin acts.

Whoever changes a position, a limit or a cover first locks the positions concerned (`db.positions`), as the position handler
does, so an act and a batch on the same account happen one after the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from domain.money import format_amount, from_numeric

POSITION = "POSITION"
SETTLEMENT = "SETTLEMENT"
HUB_RECONCILIATION = "HUB_RECONCILIATION"
HUB_MULTILATERAL_SETTLEMENT = "HUB_MULTILATERAL_SETTLEMENT"
HUB_ACCOUNT_TYPES = (HUB_RECONCILIATION, HUB_MULTILATERAL_SETTLEMENT)

NET_DEBIT_CAP = "NET_DEBIT_CAP"


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """An account with its position. The values are counts of 1/10,000."""

    account_id: int
    participant: str
    ledger_account_type: str
    currency: str
    is_active: bool
    value: int
    reserved_value: int
    changed_date: datetime
    created_date: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A participant's limit in one currency. The value is a count of 1/10,000."""

    participant: str
    currency: str
    type: str
    value: int
    alarm_percentage: Decimal


_ACCOUNTS = text(
    """
    SELECT account.participant_currency_id, participant.name, account.ledger_account_type, account.currency_id,
           account.is_active, position.value, position.reserved_value, position.changed_date,
           account.created_date, account.created_by
    FROM participant_currency AS account
    JOIN participant USING (participant_id)
    JOIN participant_position AS position USING (participant_currency_id)
    WHERE (CAST(:names AS text[]) IS NULL OR participant.name = ANY(:names))
      AND (CAST(:ids AS integer[]) IS NULL OR account.participant_currency_id = ANY(:ids))
    ORDER BY account.participant_currency_id
    """
)
_ADD = text(
    """
    WITH added AS (
      INSERT INTO participant_currency (participant_id, currency_id, ledger_account_type, is_active, created_by)
      SELECT :participant_id, :currency, type, :is_active, :created_by
      FROM unnest(CAST(:types AS text[])) WITH ORDINALITY AS wanted (type, number)
      ORDER BY number
      ON CONFLICT DO NOTHING
      RETURNING participant_currency_id
    )
    INSERT INTO participant_position (participant_currency_id)
    SELECT participant_currency_id FROM added
    RETURNING participant_currency_id
    """
)
_SET_ACTIVE = text(
    """
    UPDATE participant_currency SET is_active = :is_active
    WHERE participant_currency_id = ANY(CAST(:ids AS integer[]))
    """
)

_LIMITS = text(
    """
    SELECT participant.name, account.currency_id, participant_limit.type, participant_limit.value,
           participant_limit.alarm_percentage
    FROM participant_limit
    JOIN participant_currency AS account USING (participant_currency_id)
    JOIN participant USING (participant_id)
    WHERE (CAST(:name AS text) IS NULL OR participant.name = :name)
      AND (CAST(:currency AS text) IS NULL OR account.currency_id = :currency)
      AND (CAST(:type AS text) IS NULL OR participant_limit.type = :type)
    ORDER BY participant.name, account.currency_id, participant_limit.type
    """
)
_ADD_LIMIT = text(
    """
    INSERT INTO participant_limit (participant_currency_id, type, value, alarm_percentage)
    VALUES (:account_id, :type, CAST(:value AS numeric), :alarm_percentage)
    ON CONFLICT DO NOTHING
    """
)
_SET_LIMIT = text(
    """
    UPDATE participant_limit
    SET value = CAST(:value AS numeric), alarm_percentage = :alarm_percentage, changed_date = now()
    WHERE participant_currency_id = :account_id AND type = :type
    """
)


def accounts_of_participants(tx: Connection, names: Iterable[str]) -> list[AccountDetails]:
    """All accounts of these participants, in the order in which they were made."""
    return _accounts(tx, names=sorted(set(names)), ids=None)


def accounts_by_id(tx: Connection, ids: Iterable[int]) -> dict[int, AccountDetails]:
    """Those of the accounts that exist."""
    return {account.account_id: account for account in _accounts(tx, names=None, ids=sorted(set(ids)))}


def _accounts(tx: Connection, *, names: list[str] | None, ids: list[int] | None) -> list[AccountDetails]:
    return [
        AccountDetails(
            account_id=row.participant_currency_id,
            participant=row.name,
            ledger_account_type=row.ledger_account_type,
            currency=row.currency_id,
            is_active=row.is_active,
            value=from_numeric(row.value),
            reserved_value=from_numeric(row.reserved_value),
            changed_date=row.changed_date,
            created_date=row.created_date,
            created_by=row.created_by,
        )
        for row in tx.execute(_ACCOUNTS, {"names": names, "ids": ids})
    ]


def add_accounts(
    tx: Connection, participant_id: int, currency: str, types: Sequence[str], *, is_active: bool, created_by: str
) -> int:
    """Make the accounts that do not exist yet, each with its position of zero; returns how many were made."""
    parameters = {
        "participant_id": participant_id,
        "currency": currency,
        "types": list(types),
        "is_active": is_active,
        "created_by": created_by,
    }
    return len(tx.execute(_ADD, parameters).all())


def set_accounts_active(tx: Connection, ids: Iterable[int], *, is_active: bool) -> None:
    """Open or close accounts."""
    tx.execute(_SET_ACTIVE, {"ids": sorted(set(ids)), "is_active": is_active})


def limits(
    tx: Connection, *, name: str | None = None, currency: str | None = None, type_: str | None = None
) -> list[Limit]:
    """The limits that match, by participant and currency."""
    rows = tx.execute(_LIMITS, {"name": name, "currency": currency, "type": type_})
    return [Limit(row.name, row.currency_id, row.type, from_numeric(row.value), row.alarm_percentage) for row in rows]


def add_limit(tx: Connection, account_id: int, type_: str, value: int, alarm_percentage: Decimal) -> bool:
    """Set the account's first limit of a type; False when it has one already."""
    return tx.execute(_ADD_LIMIT, _limit_parameters(account_id, type_, value, alarm_percentage)).rowcount == 1


def set_limit(tx: Connection, account_id: int, type_: str, value: int, alarm_percentage: Decimal) -> bool:
    """Change the account's limit of a type; False when it has none."""
    return tx.execute(_SET_LIMIT, _limit_parameters(account_id, type_, value, alarm_percentage)).rowcount == 1


def _limit_parameters(account_id: int, type_: str, value: int, alarm_percentage: Decimal) -> dict[str, object]:
    return {
        "account_id": account_id,
        "type": type_,
        "value": format_amount(value),
        "alarm_percentage": alarm_percentage,
    }
