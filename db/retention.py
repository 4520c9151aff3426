"""Rows that retention removes, a bounded batch at a time, and what it must know of the rows before it removes an object.

operations/retention.py says what may go and why that is safe; the statements here say it once more, under the rows' locks. A
bulk or a single transfer has ended when its machine has no step left; how long ago, its last step says. Nothing of one that
has not ended is ever touched. A callback that WAITS is not either, nor an outcome that an FSP was never told: a final
callback that is DEAD stays until operators send it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from db.documents import int_array
from domain.states import BULK_TRANSITIONS, TRANSFER_TRANSITIONS

# One retention at a time: two would only wait for each other. Any number that nobody else uses.
_LOCK_NUMBER = 4_201_906

_FINAL = {
    "final_bulk": [str(state) for state, next_states in BULK_TRANSITIONS.items() if not next_states],
    "final_transfer": [str(state) for state, next_states in TRANSFER_TRANSITIONS.items() if not next_states],
}

# Whether the bulk or the transfer under an id is there and has not ended before a time.
_BULK_STAYS = """
    EXISTS (SELECT FROM bulk_transfer b WHERE b.bulk_transfer_id = {id} AND NOT EXISTS (
        SELECT FROM bulk_transfer_state_change s
        WHERE s.bulk_key = b.bulk_key AND s.to_state = ANY(:final_bulk) AND s.created_date < {before}))
"""
_TRANSFER_STAYS = """
    EXISTS (SELECT FROM transfer t WHERE t.transfer_id = {id} AND NOT EXISTS (
        SELECT FROM transfer_state_change s
        WHERE s.transfer_key = t.transfer_key AND s.to_state = ANY(:final_transfer) AND s.created_date < {before}))
"""

_CALLBACK_GOES = f"""
    (d.state = 'DELIVERED' OR (d.state = 'DEAD' AND d.kind <> 'FINAL')) AND d.finished_date < :callbacks_before
    AND NOT (d.resource = 'bulkTransfers' AND {_BULK_STAYS.format(id="d.entity_id", before=":callbacks_before")})
    AND NOT (d.resource = 'transfers' AND {_TRANSFER_STAYS.format(id="d.entity_id", before=":callbacks_before")})
"""

_NOW = text("SELECT now()")
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:number)")
_UNLOCK = text("SELECT pg_advisory_unlock(:number)")

_NEXT_OFFSETS = text("SELECT handler, topic, partition, next_offset FROM handler_progress")
_OLDEST_JOURNAL = text("""
    SELECT handler, changed_date FROM handler_progress WHERE outputs IS NOT NULL ORDER BY changed_date LIMIT 1
""")

_NOTE_HORIZON = text("""
    INSERT INTO retention_horizon (kind, horizon) VALUES (:kind, :horizon)
    ON CONFLICT (kind) DO UPDATE
    SET horizon = greatest(retention_horizon.horizon, excluded.horizon), changed_date = now()
""")

# The ids stand in the order of their writing, so the walk begins with the oldest that are left.
_CALLBACKS = text(f"""
    WITH walked AS (
        SELECT delivery_id, created_date FROM delivery WHERE delivery_id > :after ORDER BY delivery_id LIMIT :rows_max
    ), locked AS (
        SELECT d.delivery_id FROM walked JOIN delivery d USING (delivery_id)
        WHERE {_CALLBACK_GOES}
        FOR UPDATE OF d SKIP LOCKED
    )
    SELECT coalesce(array_agg(locked.delivery_id) FILTER (WHERE locked.delivery_id IS NOT NULL), '{{}}'),
           max(walked.delivery_id), coalesce(max(walked.created_date) >= :callbacks_before, true)
    FROM walked LEFT JOIN locked USING (delivery_id)
""")  # noqa: S608 - fragments of ours
_DELETE_ATTEMPTS = text("DELETE FROM delivery_attempt WHERE delivery_id = ANY(CAST(:ids AS bigint[]))")
_DELETE_CALLBACKS = text("DELETE FROM delivery WHERE delivery_id = ANY(CAST(:ids AS bigint[]))")

# Both roles' results of a bulk are written when it ends, in one transaction.
_FORGET_RESULTS = text("""
    WITH walked AS (
        SELECT bulk_key, max(created_date) AS ended FROM bulk_transfer_result
        WHERE list_content IS NOT NULL AND bulk_key > :after
        GROUP BY bulk_key ORDER BY bulk_key LIMIT :rows_max
    ), forgotten AS (
        UPDATE bulk_transfer_result AS r SET list_content = NULL, callback_content = NULL
        FROM walked WHERE r.bulk_key = walked.bulk_key AND walked.ended < :objects_before
    ), errors AS (
        UPDATE bulk_transfer_error AS e SET content = NULL
        FROM walked WHERE e.bulk_key = walked.bulk_key AND walked.ended < :objects_before
    )
    SELECT count(*) FILTER (WHERE ended < :objects_before), max(bulk_key) FROM walked
""")
_COUNT_RESULTS = text("""
    SELECT count(DISTINCT bulk_key) FROM bulk_transfer_result
    WHERE list_content IS NOT NULL AND created_date < :objects_before
""")
_COUNT_CALLBACKS = text(f"SELECT count(*) FROM delivery d WHERE {_CALLBACK_GOES}")  # noqa: S608 - fragments of ours


@dataclass(frozen=True, slots=True)
class Horizons:
    """Of each kind, what ended (or, an object: was put) before this time may go."""

    callbacks: datetime
    objects: datetime
    orphans: datetime

    def parameters(self) -> dict[str, Any]:
        return {
            "callbacks_before": self.callbacks,
            "objects_before": self.objects,
            "orphans_before": self.orphans,
            **_FINAL,
        }


def try_lock(tx: Connection) -> bool:
    """Whether this session is the one that does retention now; until `unlock`, or until the session ends."""
    return bool(tx.execute(_TRY_LOCK, {"number": _LOCK_NUMBER}).scalar_one())


def unlock(tx: Connection) -> None:
    tx.execute(_UNLOCK, {"number": _LOCK_NUMBER})


def read_now(tx: Connection) -> datetime:
    now: datetime = tx.execute(_NOW).scalar_one()
    return now


def next_offsets(tx: Connection) -> dict[tuple[str, str, int], int]:
    """By (handler, topic, partition) the offset that is read next."""
    return {(row[0], row[1], row[2]): row[3] for row in tx.execute(_NEXT_OFFSETS)}


def oldest_journal(tx: Connection) -> tuple[str, datetime] | None:
    """The handler whose stored outputs are the oldest that may still have to be sent, and when it stored them."""
    row = tx.execute(_OLDEST_JOURNAL).one_or_none()
    return None if row is None else (row[0], row[1])


def note_horizons(tx: Connection, horizons: Horizons) -> None:
    """Say what may be gone from now on; committed before anything is removed."""
    tx.execute(_NOTE_HORIZON, {"kind": "callbacks", "horizon": horizons.callbacks})
    tx.execute(_NOTE_HORIZON, {"kind": "objects", "horizon": horizons.objects})


@dataclass(frozen=True, slots=True)
class Batch:
    """How many rows went, and where the walk goes on; None at its end."""

    removed: int
    after: int | None


def remove_callbacks(tx: Connection, horizons: Horizons, after: int, rows_max: int) -> Batch:
    """Walk `rows_max` callbacks and delete those that may go, with their attempts."""
    parameters = horizons.parameters() | {"after": after, "rows_max": rows_max}
    ids, last, at_horizon = tx.execute(_CALLBACKS, parameters).one()
    if ids:
        tx.execute(_DELETE_ATTEMPTS, {"ids": int_array(ids)})
        tx.execute(_DELETE_CALLBACKS, {"ids": int_array(ids)})
    return Batch(len(ids), None if at_horizon else last)


def forget_results(tx: Connection, horizons: Horizons, after: int, rows_max: int) -> Batch:
    """Walk `rows_max` bulks and empty the contents of the results and errors of those that may go."""
    parameters = horizons.parameters() | {"after": after, "rows_max": rows_max}
    return Batch(*tx.execute(_FORGET_RESULTS, parameters).one())


def count_removable(tx: Connection, horizons: Horizons) -> tuple[int, int]:
    """How many callbacks, and how many bulks' results, would be removed."""
    _allow_scans(tx)
    parameters = horizons.parameters()
    return tx.execute(_COUNT_CALLBACKS, parameters).scalar_one(), tx.execute(_COUNT_RESULTS, parameters).scalar_one()


# ---------------------------------------------------------------------------------------------------------------------
# Objects: what is old enough is collected in a table of this session, which the named ones are then taken out of.

_MAKE_CANDIDATES = text("""
    CREATE TEMPORARY TABLE IF NOT EXISTS retention_candidate (
        key text PRIMARY KEY, put_date timestamptz NOT NULL, entity_id uuid, kind text)
""")
_CLEAR_CANDIDATES = text("TRUNCATE retention_candidate")
_ADD_CANDIDATES = text("""
    INSERT INTO retention_candidate (key, put_date, entity_id)
    SELECT key, to_timestamp(put_ms / 1000.0), CAST(entity_id AS uuid)
    FROM unnest(CAST(:keys AS text[]), CAST(:puts_ms AS bigint[]), CAST(:entity_ids AS text[]))
         AS r(key, put_ms, entity_id)
""")
_ANALYZE_CANDIDATES = text("ANALYZE retention_candidate")

# A row that is to go itself names nothing (in a dry run it is still there); whatever else is there keeps what it names.
_NAMED = (
    f"""
    DELETE FROM retention_candidate c USING delivery d
    WHERE d.content = c.key AND NOT (:is_dry AND {_CALLBACK_GOES})
    """,  # noqa: S608 - fragments of ours
    """
    DELETE FROM retention_candidate c USING bulk_transfer_result r
    WHERE r.list_content = c.key AND NOT (:is_dry AND r.created_date < :objects_before)
    """,
    """
    DELETE FROM retention_candidate c USING bulk_transfer_result r
    WHERE r.callback_content = c.key AND NOT (:is_dry AND r.created_date < :objects_before)
    """,
    """
    DELETE FROM retention_candidate c USING bulk_transfer_error e
    WHERE e.content = c.key AND NOT (:is_dry AND EXISTS (
        SELECT FROM bulk_transfer_result r WHERE r.bulk_key = e.bulk_key AND r.created_date < :objects_before))
    """,
)
# A request stays while what it is about has not ended for long enough; one that is about nothing known is an orphan.
_STAYING_REQUESTS = f"""
    DELETE FROM retention_candidate c
    WHERE c.entity_id IS NOT NULL
      AND ({_BULK_STAYS.format(id="c.entity_id", before=":objects_before")}
           OR {_TRANSFER_STAYS.format(id="c.entity_id", before=":objects_before")})
"""  # noqa: S608 - fragments of ours
_SORT_CANDIDATES = """
    UPDATE retention_candidate AS c SET kind = CASE
        WHEN c.entity_id IS NULL THEN 'contents'
        WHEN EXISTS (SELECT FROM bulk_transfer b WHERE b.bulk_transfer_id = c.entity_id)
          OR EXISTS (SELECT FROM transfer t WHERE t.transfer_id = c.entity_id) THEN 'requests'
        ELSE 'orphans' END
"""
_TOO_YOUNG = """
    DELETE FROM retention_candidate
    WHERE put_date >= CASE WHEN kind = 'orphans' THEN CAST(:orphans_before AS timestamptz) ELSE :objects_before END
"""
_COUNT_CANDIDATES = text("SELECT kind, count(*) FROM retention_candidate GROUP BY kind")
_CANDIDATES = text("SELECT key, kind FROM retention_candidate WHERE key > :after ORDER BY key LIMIT :keys_max")


def begin_candidates(tx: Connection) -> None:
    """An empty collection, private to this session."""
    tx.execute(_MAKE_CANDIDATES)
    tx.execute(_CLEAR_CANDIDATES)


def add_candidates(tx: Connection, objects: Sequence[tuple[str, int, str | None]]) -> None:
    """Collect objects: (key, when it was put in milliseconds, the id that it is about or None)."""
    keys, puts_ms, entity_ids = (list(column) for column in zip(*objects, strict=True))
    tx.execute(_ADD_CANDIDATES, {"keys": keys, "puts_ms": puts_ms, "entity_ids": entity_ids})


def keep_what_is_named(tx: Connection, horizons: Horizons, *, is_dry: bool) -> None:
    """Take out of the collection what some row names or needs, and what is too young; sort the rest by kind."""
    _allow_scans(tx)
    tx.execute(_ANALYZE_CANDIDATES)
    parameters = horizons.parameters() | {"is_dry": is_dry}
    for statement in (*_NAMED, _STAYING_REQUESTS, _SORT_CANDIDATES, _TOO_YOUNG):
        tx.execute(text(statement), parameters)


def count_candidates(tx: Connection) -> Mapping[str, int]:
    """How many requests, orphans and contents may go."""
    return {row[0]: row[1] for row in tx.execute(_COUNT_CANDIDATES)}


def candidates(tx: Connection, after: str, keys_max: int) -> list[tuple[str, str]]:
    """The next (key, kind) of what may go."""
    return [(row[0], row[1]) for row in tx.execute(_CANDIDATES, {"after": after, "keys_max": keys_max})]


def _allow_scans(tx: Connection) -> None:
    """This transaction reads tables as a whole, once: the opposite of what a handler does (db/engine.py)."""
    for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
        tx.execute(text(f"SET LOCAL {name} = on"))
