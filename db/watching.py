"""What operators watch and only the database knows, in a handful of statements that are bounded by what is unfinished.

Nothing here reads what has ended: open bulks and transfers come from `open_expiration`, waiting callbacks from the index of
what waits, positions from the accounts. Each statement has a time (`limit_statements`), so that a database under load is
not kept busy by those who watch it. Amounts stay numbers of the database; who turns them into floats, only shows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, text

from domain.identifiers import ITEMS_PER_BULK

_TIMEOUT = text("SELECT set_config('statement_timeout', :wait_ms, true)")

_ACCOUNTS = text("""
    SELECT participant.name, a.currency_id, p.value, p.reserved_value, -coalesce(sp.value, 0), l.value
    FROM participant_currency a
    JOIN participant ON participant.participant_id = a.participant_id
    JOIN participant_position p ON p.participant_currency_id = a.participant_currency_id
    LEFT JOIN participant_currency s ON s.participant_id = a.participant_id AND s.currency_id = a.currency_id
         AND s.ledger_account_type = 'SETTLEMENT'
    LEFT JOIN participant_position sp ON sp.participant_currency_id = s.participant_currency_id
    LEFT JOIN participant_limit l ON l.participant_currency_id = p.participant_currency_id AND l.type = 'NET_DEBIT_CAP'
    WHERE a.ledger_account_type = 'POSITION'
""")

# The state of each is the to_state that no step has left (db/bulks.py, db/transfers.py).
_OPEN_BULKS = text("""
    SELECT s.to_state, count(*), CAST(extract(epoch FROM now() - min(b.received_date)) AS double precision),
           count(*) FILTER (WHERE b.expiration < now()),
           CAST(extract(epoch FROM now() - min(b.expiration)) AS double precision)
    FROM open_expiration o
    JOIN bulk_transfer b ON b.bulk_key = o.number
    JOIN bulk_transfer_state_change s ON s.bulk_key = o.number AND NOT EXISTS (
        SELECT FROM bulk_transfer_state_change n WHERE n.bulk_key = s.bulk_key AND n.from_state = s.to_state)
    WHERE NOT o.is_single
    GROUP BY s.to_state
""")
_OPEN_SINGLES = text("""
    SELECT s.to_state, count(*), CAST(extract(epoch FROM now() - min(x.received_date)) AS double precision),
           count(*) FILTER (WHERE t.expiration < now()),
           CAST(extract(epoch FROM now() - min(t.expiration)) AS double precision)
    FROM open_expiration o
    JOIN single_transfer x ON x.transfer_key = o.number * :items_per_bulk
    JOIN transfer t ON t.transfer_key = x.transfer_key
    JOIN transfer_state_change s ON s.transfer_key = x.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    WHERE o.is_single
    GROUP BY s.to_state
""")
_OPEN_ITEMS = text("SELECT payer_fsp, sum(item_count) FROM open_expiration GROUP BY payer_fsp")

# The oldest one that waits was written first (or sent again last; then its time counts from there).
_WAITING = text("""
    SELECT waiting.fsp, waiting.callbacks,
           CAST(extract(epoch FROM now() - oldest.renewed_date) AS double precision)
    FROM (SELECT fsp, count(*) AS callbacks, min(delivery_id) AS delivery_id
          FROM delivery WHERE state = 'WAITING' GROUP BY fsp) AS waiting
    JOIN delivery AS oldest ON oldest.delivery_id = waiting.delivery_id
""")


@dataclass(frozen=True, slots=True)
class WatchedAccount:
    """A POSITION account: what it holds, what of that is reserved, and what it may be reserved up to."""

    participant: str
    currency: str
    position: Decimal
    reserved: Decimal
    cover: Decimal
    net_debit_cap: Decimal | None


@dataclass(frozen=True, slots=True)
class OpenEntities:
    """Unfinished bulks or single transfers of one state; how many are past their expiration, and the oldest by how much."""

    state: str
    count: int
    oldest_s: float
    overdue: int
    overdue_s: float


@dataclass(frozen=True, slots=True)
class WaitingCallbacks:
    """What an FSP has not been told yet."""

    fsp: str
    count: int
    oldest_s: float


def limit_statements(tx: Connection, wait_ms: int) -> None:
    """Each statement of this transaction takes `wait_ms` at most."""
    tx.execute(_TIMEOUT, {"wait_ms": str(wait_ms)})


def watched_accounts(tx: Connection) -> list[WatchedAccount]:
    return [WatchedAccount(*row) for row in tx.execute(_ACCOUNTS)]


def open_bulks(tx: Connection) -> list[OpenEntities]:
    return [_open(row) for row in tx.execute(_OPEN_BULKS)]


def open_single_transfers(tx: Connection) -> list[OpenEntities]:
    return [_open(row) for row in tx.execute(_OPEN_SINGLES, {"items_per_bulk": ITEMS_PER_BULK})]


def _open(row: Sequence[object]) -> OpenEntities:
    state, count, oldest_s, overdue, overdue_s = row
    return OpenEntities(str(state), _int(count), _seconds(oldest_s), _int(overdue), _seconds(overdue_s))


def open_transfers_of_payers(tx: Connection) -> dict[str, int]:
    """Per payer the items of its unfinished bulks and its unfinished single transfers: what the edge bounds."""
    return {row[0]: int(row[1]) for row in tx.execute(_OPEN_ITEMS)}


def waiting_callbacks(tx: Connection) -> list[WaitingCallbacks]:
    return [WaitingCallbacks(row[0], int(row[1]), _seconds(row[2])) for row in tx.execute(_WAITING)]


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _seconds(value: object) -> float:
    """Never below nothing: what is not due yet is not overdue, and clocks of two rows may differ."""
    assert value is None or isinstance(value, float)
    return max(value or 0.0, 0.0)
