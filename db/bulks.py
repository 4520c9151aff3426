"""Bulks: their rows, their state changes, and what their handlers ask of them, a batch at a time.

A bulk's current state is the one that no step has left: the row of bulk_transfer_state_change whose to_state is nobody's
from_state. The machine has no cycle, so there is exactly one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.documents import document, hex_bytes
from domain.bulk_processing import FulfilOutcome
from domain.identifiers import id_text
from domain.states import START, BulkState


@dataclass(frozen=True, slots=True)
class BulkRow:
    """A bulk as it stands. `fulfil_*` are set once the payee's answer was accepted."""

    bulk_key: int
    bulk_transfer_id: bytes
    payer_fsp: str
    payee_fsp: str | None
    expiration_ms: int | None
    item_count: int
    request_id: bytes
    hash: bytes
    state: BulkState
    was_accepted: bool
    fulfil_request_id: bytes | None
    fulfil_hash: bytes | None
    fulfil_outcome: FulfilOutcome | None
    completed_timestamp: str | None


_SELECT = """
    SELECT b.bulk_key, uuid_send(b.bulk_transfer_id), b.payer_fsp, b.payee_fsp,
           CAST(extract(epoch FROM b.expiration) * 1000 AS bigint), b.item_count, uuid_send(b.request_id), d.hash,
           s.to_state,
           EXISTS (SELECT FROM bulk_transfer_state_change a
                   WHERE a.bulk_key = b.bulk_key AND a.from_state = 'PENDING_PREPARE' AND a.to_state = 'ACCEPTED'),
           uuid_send(f.request_id), fd.hash, f.outcome, f.completed_timestamp
    FROM bulk_transfer b
    JOIN bulk_transfer_state_change s ON s.bulk_key = b.bulk_key AND NOT EXISTS (
        SELECT FROM bulk_transfer_state_change n WHERE n.bulk_key = s.bulk_key AND n.from_state = s.to_state)
    JOIN bulk_transfer_duplicate_check d ON d.bulk_key = b.bulk_key
    LEFT JOIN bulk_transfer_fulfilment f ON f.bulk_key = b.bulk_key
    LEFT JOIN bulk_transfer_fulfilment_duplicate_check fd ON fd.bulk_key = b.bulk_key
"""
_BY_ID = text(_SELECT + "WHERE b.bulk_transfer_id = ANY(CAST(:ids AS uuid[]))")
_BY_KEY = text(_SELECT + "WHERE b.bulk_key = ANY(CAST(:keys AS bigint[]))")


def _row(row: Any) -> BulkRow:
    return BulkRow(
        bulk_key=row[0],
        bulk_transfer_id=row[1],
        payer_fsp=row[2],
        payee_fsp=row[3],
        expiration_ms=row[4],
        item_count=row[5],
        request_id=row[6],
        hash=row[7],
        state=BulkState(row[8]),
        was_accepted=row[9],
        fulfil_request_id=row[10],
        fulfil_hash=row[11],
        fulfil_outcome=None if row[12] is None else FulfilOutcome(row[12]),
        completed_timestamp=row[13],
    )


def bulks_by_id(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, BulkRow]:
    """The bulks that exist under these bulkTransferIds."""
    bulks = [_row(row) for row in tx.execute(_BY_ID, {"ids": [id_text(one) for one in ids]}).all()]
    return {bulk.bulk_transfer_id: bulk for bulk in bulks}


def bulks_by_key(tx: Connection, keys: Sequence[int]) -> dict[int, BulkRow]:
    bulks = [_row(row) for row in tx.execute(_BY_KEY, {"keys": list(keys)}).all()]
    return {bulk.bulk_key: bulk for bulk in bulks}


_LOCK = text("""
    SELECT bulk_key FROM bulk_transfer WHERE bulk_key = ANY(CAST(:keys AS bigint[]))
    ORDER BY bulk_key FOR NO KEY UPDATE
""")
_LOCK_SHARED = text("""
    SELECT bulk_key FROM bulk_transfer WHERE bulk_key = ANY(CAST(:keys AS bigint[]))
    ORDER BY bulk_key FOR SHARE
""")


def lock_bulks(tx: Connection, keys: Sequence[int]) -> None:
    """Lock the bulks in key order; what is to be decided under the lock is read in statements after this one."""
    tx.execute(_LOCK, {"keys": sorted(keys)})


def lock_bulks_shared(tx: Connection, keys: Sequence[int]) -> None:
    """Hold off bulk-processing and timeout, but not others who share, until this transaction ends."""
    tx.execute(_LOCK_SHARED, {"keys": sorted(keys)})


@dataclass(frozen=True, slots=True)
class NewBulk:
    """A bulk to write down. What a refused request did not say is None."""

    bulk_transfer_id: bytes
    bulk_quote_id: str | None
    payer_fsp: str
    payee_fsp: str | None
    expiration_ms: int | None
    item_count: int
    request_id: bytes
    received_at_ms: int
    hash: bytes
    extensions: Sequence[tuple[str, str]]
    expires: bool


_INSERT_BULKS = text("""
    WITH input AS MATERIALIZED (
        SELECT nextval('bulk_transfer_bulk_key_seq') AS bulk_key, r.*
        FROM json_to_recordset(CAST(:rows AS json)) AS r(
            bulk_transfer_id uuid, bulk_quote_id uuid, payer_fsp text, payee_fsp text, expiration_ms bigint,
            item_count int, request_id uuid, received_at_ms bigint, hash bytea, extensions json, expires boolean)
    ), bulks AS (
        INSERT INTO bulk_transfer (bulk_key, bulk_transfer_id, bulk_quote_id, payer_fsp, payee_fsp, expiration,
                                   item_count, request_id, received_date)
        SELECT bulk_key, bulk_transfer_id, bulk_quote_id, payer_fsp, payee_fsp,
               to_timestamp(expiration_ms / 1000.0), item_count, request_id, to_timestamp(received_at_ms / 1000.0)
        FROM input
    ), checks AS (
        INSERT INTO bulk_transfer_duplicate_check (bulk_key, hash) SELECT bulk_key, hash FROM input
    ), extensions AS (
        INSERT INTO bulk_transfer_extension (bulk_key, is_fulfilment, number, key, value)
        SELECT bulk_key, false, e.number, e.pair ->> 0, e.pair ->> 1
        FROM input, json_array_elements(input.extensions) WITH ORDINALITY AS e(pair, number)
    ), expirations AS (
        INSERT INTO open_expiration (number, is_single, due_date, payer_fsp, item_count)
        SELECT bulk_key, false, to_timestamp(expiration_ms / 1000.0), payer_fsp, item_count FROM input WHERE expires
    )
    SELECT uuid_send(bulk_transfer_id), bulk_key FROM input
""")


def insert_bulks(tx: Connection, bulks: Sequence[NewBulk]) -> dict[bytes, int]:
    """Write the bulks without any state; returns their keys by bulkTransferId.

    A bulkTransferId that another transaction wrote meanwhile raises the driver's unique violation (a lost race).
    """
    rows = document(
        {
            "bulk_transfer_id": id_text(bulk.bulk_transfer_id),
            "bulk_quote_id": bulk.bulk_quote_id,
            "payer_fsp": bulk.payer_fsp,
            "payee_fsp": bulk.payee_fsp,
            "expiration_ms": bulk.expiration_ms,
            "item_count": bulk.item_count,
            "request_id": id_text(bulk.request_id),
            "received_at_ms": bulk.received_at_ms,
            "hash": hex_bytes(bulk.hash),
            "extensions": bulk.extensions,
            "expires": bulk.expires,
        }
        for bulk in bulks
    )
    found = tx.execute(_INSERT_BULKS, {"rows": rows})
    return {row[0]: row[1] for row in found}


@dataclass(frozen=True, slots=True)
class BulkStateChange:
    """A step of a bulk; `from_state` is None for the first."""

    bulk_key: int
    from_state: BulkState | None
    to_state: BulkState
    reason: str | None = None


_INSERT_STEPS = text("""
    INSERT INTO bulk_transfer_state_change (bulk_key, from_state, to_state, reason)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
        bulk_key bigint, from_state text, to_state text, reason text)
""")


def insert_bulk_steps(tx: Connection, steps: Sequence[BulkStateChange]) -> None:
    """Write the steps; one that another transaction took first raises the driver's unique violation (a lost race)."""
    rows = document(
        {
            "bulk_key": step.bulk_key,
            "from_state": step.from_state or START,
            "to_state": step.to_state,
            "reason": step.reason,
        }
        for step in steps
    )
    tx.execute(_INSERT_STEPS, {"rows": rows})


@dataclass(frozen=True, slots=True)
class BulkError:
    """The error of a bulk as a whole; `content` is the object with the callback's body."""

    bulk_key: int
    error_code: str
    error_description: str
    content: str


_INSERT_ERRORS = text("""
    INSERT INTO bulk_transfer_error (bulk_key, error_code, error_description, content)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
        bulk_key bigint, error_code text, error_description text, content text)
""")
_ERROR_CONTENTS = text("""
    SELECT bulk_key, content FROM bulk_transfer_error WHERE bulk_key = ANY(CAST(:keys AS bigint[]))
""")


def insert_bulk_errors(tx: Connection, errors: Sequence[BulkError]) -> None:
    rows = document(
        {
            "bulk_key": error.bulk_key,
            "error_code": error.error_code,
            "error_description": error.error_description,
            "content": error.content,
        }
        for error in errors
    )
    tx.execute(_INSERT_ERRORS, {"rows": rows})


def bulk_error_contents(tx: Connection, keys: Sequence[int]) -> dict[int, str]:
    """By bulk key the object with the body of its error."""
    return {row[0]: row[1] for row in tx.execute(_ERROR_CONTENTS, {"keys": list(keys)}).all()}


@dataclass(frozen=True, slots=True)
class BulkFulfilment:
    """The payee's answer that was accepted."""

    bulk_key: int
    request_id: bytes
    bulk_transfer_state: str | None
    completed_timestamp: str | None
    outcome: FulfilOutcome
    received_at_ms: int
    hash: bytes
    extensions: Sequence[tuple[str, str]]


_INSERT_FULFILMENTS = text("""
    WITH input AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
            bulk_key bigint, request_id uuid, bulk_transfer_state text, completed_timestamp text, outcome text,
            received_at_ms bigint, hash bytea, extensions json)
    ), checks AS (
        INSERT INTO bulk_transfer_fulfilment_duplicate_check (bulk_key, hash) SELECT bulk_key, hash FROM input
    ), extensions AS (
        INSERT INTO bulk_transfer_extension (bulk_key, is_fulfilment, number, key, value)
        SELECT bulk_key, true, e.number, e.pair ->> 0, e.pair ->> 1
        FROM input, json_array_elements(input.extensions) WITH ORDINALITY AS e(pair, number)
    )
    INSERT INTO bulk_transfer_fulfilment (bulk_key, request_id, bulk_transfer_state, completed_timestamp, outcome,
                                          received_date)
    SELECT bulk_key, request_id, bulk_transfer_state, completed_timestamp, outcome,
           to_timestamp(received_at_ms / 1000.0)
    FROM input
""")


def insert_fulfilments(tx: Connection, fulfilments: Sequence[BulkFulfilment]) -> None:
    """Write the answers with their duplicate checks; an answer that is there already raises the unique violation."""
    rows = document(
        {
            "bulk_key": one.bulk_key,
            "request_id": id_text(one.request_id),
            "bulk_transfer_state": one.bulk_transfer_state,
            "completed_timestamp": one.completed_timestamp,
            "outcome": one.outcome.value,
            "received_at_ms": one.received_at_ms,
            "hash": hex_bytes(one.hash),
            "extensions": one.extensions,
        }
        for one in fulfilments
    )
    tx.execute(_INSERT_FULFILMENTS, {"rows": rows})


def extensions_of(tx: Connection, keys: Sequence[int]) -> Mapping[int, list[tuple[str, str]]]:
    """The extensions of the payees' answers, by bulk key, in their order."""
    found = tx.execute(_EXTENSIONS, {"keys": list(keys)}).all()
    extensions: dict[int, list[tuple[str, str]]] = {}
    for bulk_key, key, value in found:
        extensions.setdefault(bulk_key, []).append((key, value))
    return extensions


_EXTENSIONS = text("""
    SELECT bulk_key, key, value FROM bulk_transfer_extension
    WHERE bulk_key = ANY(CAST(:keys AS bigint[])) AND is_fulfilment ORDER BY bulk_key, number
""")
