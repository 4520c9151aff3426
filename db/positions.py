"""Positions under their locks: what the position handler reads and writes, and how anybody else who moves money locks.

Rule for all: lock the participant_position rows of every account that matters, POSITION and SETTLEMENT alike, in id order,
`FOR NO KEY UPDATE`, in a statement of its own; read in the next statement, because the statement that waited for a lock
still sees the rows from before the wait.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from sqlalchemy import Connection, text

from db.documents import document
from domain.money import format_amount, from_numeric
from domain.position import AccountPosition

_LOCK = text("""
    SELECT participant_currency_id FROM participant_position
    WHERE participant_currency_id = ANY(CAST(:accounts AS int[]))
    ORDER BY participant_currency_id FOR NO KEY UPDATE
""")
_LOCK_WITH_COVER = text("""
    SELECT participant_currency_id FROM participant_position
    WHERE participant_currency_id = ANY(CAST(:accounts AS int[]))
       OR participant_currency_id IN (
            SELECT s.participant_currency_id FROM participant_currency p
            JOIN participant_currency s ON s.participant_id = p.participant_id AND s.currency_id = p.currency_id
                 AND s.ledger_account_type = 'SETTLEMENT'
            WHERE p.participant_currency_id = ANY(CAST(:accounts AS int[])))
    ORDER BY participant_currency_id FOR NO KEY UPDATE
""")
_READ = text("""
    SELECT p.participant_currency_id, p.value, p.reserved_value, -coalesce(sp.value, 0), l.value
    FROM participant_position p
    JOIN participant_currency a ON a.participant_currency_id = p.participant_currency_id
    LEFT JOIN participant_currency s ON s.participant_id = a.participant_id AND s.currency_id = a.currency_id
         AND s.ledger_account_type = 'SETTLEMENT'
    LEFT JOIN participant_position sp ON sp.participant_currency_id = s.participant_currency_id
    LEFT JOIN participant_limit l ON l.participant_currency_id = p.participant_currency_id AND l.type = 'NET_DEBIT_CAP'
    WHERE p.participant_currency_id = ANY(CAST(:accounts AS int[]))
""")
# The one statement that changes positions writes their history with it (db/tables/participants.py): under the locks, so
# that the row's number is its place, and from the statement's snapshot, in which the value is still the one before.
_WRITE = text("""
    WITH wanted AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(account int, value numeric)
    ), written AS (
        UPDATE participant_position AS p SET value = wanted.value, changed_date = now()
        FROM wanted WHERE p.participant_currency_id = wanted.account
    )
    INSERT INTO participant_position_change (participant_currency_id, value_before, value, reserved_value, cover,
                                             net_debit_cap)
    SELECT p.participant_currency_id, p.value, wanted.value, p.reserved_value, -coalesce(sp.value, 0), l.value
    FROM wanted
    JOIN participant_position p ON p.participant_currency_id = wanted.account
    JOIN participant_currency a ON a.participant_currency_id = p.participant_currency_id
    LEFT JOIN participant_currency s ON s.participant_id = a.participant_id AND s.currency_id = a.currency_id
         AND s.ledger_account_type = 'SETTLEMENT'
    LEFT JOIN participant_position sp ON sp.participant_currency_id = s.participant_currency_id
    LEFT JOIN participant_limit l ON l.participant_currency_id = p.participant_currency_id AND l.type = 'NET_DEBIT_CAP'
    ORDER BY p.participant_currency_id
""")


def lock_positions(tx: Connection, accounts: Iterable[int]) -> None:
    """Wait until nobody else moves money on these accounts; read what they hold in the next statement."""
    tx.execute(_LOCK, {"accounts": sorted(set(accounts))})


def lock_positions_with_cover(tx: Connection, accounts: Iterable[int]) -> None:
    """Lock these POSITION accounts and the SETTLEMENT accounts beside them, which are their cover."""
    tx.execute(_LOCK_WITH_COVER, {"accounts": sorted(set(accounts))})


def read_positions(tx: Connection, accounts: Sequence[int]) -> dict[int, AccountPosition]:
    """The positions of POSITION accounts with cover and cap; exact under `lock_positions_with_cover` only."""
    value: Decimal
    reserved: Decimal
    cover: Decimal
    cap: Decimal | None
    positions: dict[int, AccountPosition] = {}
    for account, value, reserved, cover, cap in tx.execute(_READ, {"accounts": sorted(accounts)}).all():
        positions[account] = AccountPosition(
            account,
            from_numeric(value),
            from_numeric(reserved),
            from_numeric(cover),
            None if cap is None else from_numeric(cap),
        )
    return positions


def write_positions(tx: Connection, positions: Mapping[int, int]) -> None:
    """Set the values of accounts that the caller has locked, with a row of history for each."""
    rows = document({"account": account, "value": format_amount(value)} for account, value in positions.items())
    tx.execute(_WRITE, {"rows": rows})
