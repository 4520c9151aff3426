"""What is asked of a database that was restored to an earlier moment: the numbers it draws, and what its rows say."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from db.documents import uuid_array

_LAST_NUMBER = text(
    "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM bulk_transfer_bulk_key_seq"
)
_ADVANCE = text("SELECT setval('bulk_transfer_bulk_key_seq', :number)")

_MAKE = text("CREATE TEMPORARY TABLE IF NOT EXISTS restored_content (key text PRIMARY KEY) ON COMMIT DROP")
_ADD = text("INSERT INTO restored_content SELECT unnest(CAST(:keys AS text[])) ON CONFLICT DO NOTHING")
_TAKE_OUT = (
    # What a side of a bulk was told at its end is what its result says; a callback of the lost time may say otherwise.
    text("DELETE FROM restored_content c USING delivery d WHERE d.content = c.key AND d.kind = 'FORWARD'"),
    text("DELETE FROM restored_content c USING bulk_transfer_result r WHERE r.list_content = c.key"),
    text("DELETE FROM restored_content c USING bulk_transfer_result r WHERE r.callback_content = c.key"),
    text("DELETE FROM restored_content c USING bulk_transfer_error e WHERE e.content = c.key"),
)
_LEFT = text("SELECT key FROM restored_content WHERE key > :after ORDER BY key LIMIT :keys_max")

_NOW = text("""
    SELECT uuid_send(t.transfer_id), b.bulk_transfer_id, s.to_state, s.error_code
    FROM transfer t
    JOIN transfer_state_change s ON s.transfer_key = t.transfer_key AND NOT EXISTS (
        SELECT FROM transfer_state_change n WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    LEFT JOIN bulk_transfer b ON b.bulk_key = t.transfer_key / :width AND t.transfer_key % :width > 0
    WHERE t.transfer_id = ANY(CAST(:ids AS uuid[]))
""")


def last_number(tx: Connection) -> int:
    """The number that was given last to a bulk or single transfer."""
    number: int = tx.execute(_LAST_NUMBER).scalar_one()
    return number


def advance_numbers(tx: Connection, number: int) -> None:
    """Let the next bulk or single transfer get a number above this one."""
    tx.execute(_ADVANCE, {"number": number})


def begin_contents(tx: Connection) -> None:
    """An empty collection of content keys, which ends with the transaction."""
    tx.execute(_MAKE)


def add_contents(tx: Connection, keys: Sequence[str]) -> None:
    tx.execute(_ADD, {"keys": list(keys)})


def take_out_named(tx: Connection) -> None:
    """Take out of the collection what some row names."""
    # These tables are read as a whole, once: the opposite of what a handler does (db/engine.py).
    for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
        tx.execute(text(f"SET LOCAL {name} = on"))
    tx.execute(text("ANALYZE restored_content"))
    for statement in _TAKE_OUT:
        tx.execute(statement)


def contents_left(tx: Connection, after: str, keys_max: int) -> list[str]:
    """The next keys of what is left in the collection."""
    return list(tx.execute(_LEFT, {"after": after, "keys_max": keys_max}).scalars())


class TransferNow(NamedTuple):
    """A transfer as the database has it; without a bulk it is a single one."""

    transfer_id: bytes
    bulk_transfer_id: UUID | None
    state: str
    error_code: str | None


def transfers_now(tx: Connection, ids: Sequence[bytes], width: int) -> dict[bytes, TransferNow]:
    found = [TransferNow(*row) for row in tx.execute(_NOW, {"ids": uuid_array(ids), "width": width}).all()]
    return {one.transfer_id: one for one in found}
