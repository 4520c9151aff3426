"""What redrive reads: what is open, a bounded page at a time, and which callbacks have been written down.

Everything that has not ended stands in open_expiration, so nothing else is walked to find it. What has ended is walked by
its key, oldest first, and compared with the callbacks in the server; of that only what lacks a callback comes back. What
ended before the horizon of retention may have had callbacks that were removed since, and does not count as untold.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from db.documents import int_array, uuid_array
from domain.fspiop_errors import FspiopError
from domain.identifiers import ITEMS_PER_BULK
from domain.states import TRANSFER_TRANSITIONS

_OPEN = text("""
    SELECT number, is_single FROM (
        SELECT number, is_single, sum(item_count) OVER (ORDER BY number) - item_count AS items_before
        FROM (SELECT number, is_single, item_count FROM open_expiration
              WHERE number > :after ORDER BY number LIMIT :items_max) AS walked
    ) AS counted
    WHERE items_before < :items_max ORDER BY number
""")
_OPEN_AMONG = text("""
    SELECT number, is_single FROM open_expiration WHERE number = ANY(CAST(:numbers AS bigint[])) ORDER BY number
""")
_NUMBERS = text("""
    SELECT uuid_send(bulk_transfer_id), bulk_key FROM bulk_transfer WHERE bulk_transfer_id = ANY(CAST(:ids AS uuid[]))
    UNION ALL
    SELECT uuid_send(transfer_id), transfer_key / :width FROM transfer JOIN single_transfer USING (transfer_key)
    WHERE transfer_id = ANY(CAST(:ids AS uuid[]))
""")
_TOLD = text("""
    SELECT uuid_send(entity_id), resource, fsp, kind FROM delivery
    WHERE entity_id = ANY(CAST(:ids AS uuid[])) AND kind <> 'ANSWER'
""")
_ANSWERED = text("""
    SELECT uuid_send(request_id) FROM delivery
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND kind = 'ANSWER'
""")
_ERRORS = text("""
    SELECT bulk_key, error_code, error_description FROM bulk_transfer_error
    WHERE bulk_key = ANY(CAST(:keys AS bigint[]))
""")
_ENDED_BULKS = text("""
    SELECT DISTINCT bulk_key FROM bulk_transfer_result
    WHERE list_content IS NOT NULL AND bulk_key > :after ORDER BY bulk_key LIMIT :rows_max
""")
_SINGLES = text(
    "SELECT transfer_key FROM single_transfer WHERE transfer_key > :after ORDER BY transfer_key LIMIT :rows_max"
)
_KEPT_SINCE = "coalesce((SELECT horizon FROM retention_horizon WHERE kind = 'callbacks'), '-infinity')"
_UNTOLD_BULKS = text(f"""
    SELECT uuid_send(b.bulk_transfer_id), side.fsp, r.role, r.callback, r.callback_content,
           EXISTS (SELECT FROM bulk_transfer_state_change s
                   WHERE s.bulk_key = b.bulk_key AND s.from_state = 'PENDING_INVALID')
    FROM bulk_transfer_result r
    JOIN bulk_transfer b ON b.bulk_key = r.bulk_key
    CROSS JOIN LATERAL (SELECT CASE r.role WHEN 'PAYER' THEN b.payer_fsp ELSE b.payee_fsp END AS fsp) AS side
    WHERE r.bulk_key = ANY(CAST(:keys AS bigint[])) AND r.callback_content IS NOT NULL
      AND r.created_date >= {_KEPT_SINCE}
      AND NOT EXISTS (SELECT FROM delivery d WHERE d.entity_id = b.bulk_transfer_id AND d.resource = 'bulkTransfers'
                      AND d.fsp = side.fsp AND d.kind = 'FINAL' AND d.kind <> 'ANSWER')
    ORDER BY r.bulk_key, r.role
""")  # noqa: S608 - a fragment of ours
# Who has to be told the end of a single transfer is domain/single_transfers.py's to say; this finds who may lack it.
_UNTOLD_SINGLES = text(f"""
    SELECT x.transfer_key
    FROM single_transfer x
    JOIN transfer t ON t.transfer_key = x.transfer_key
    JOIN transfer_state_change s ON s.transfer_key = x.transfer_key AND s.to_state = ANY(:final_transfer)
    WHERE x.transfer_key = ANY(CAST(:keys AS bigint[])) AND s.created_date >= {_KEPT_SINCE}
      AND (SELECT count(*) FROM delivery d WHERE d.entity_id = t.transfer_id AND d.resource = 'transfers'
             AND d.kind = 'FINAL' AND d.kind <> 'ANSWER')
          < CASE WHEN s.to_state = 'EXPIRED_RESERVED' OR s.reason IN ('reserve', 'reserved-aborted') THEN 2 ELSE 1 END
    ORDER BY x.transfer_key
""")  # noqa: S608 - a fragment of ours
_FINAL_TRANSFER = [str(state) for state, next_states in TRANSFER_TRANSITIONS.items() if not next_states]


class OpenPage(NamedTuple):
    """Keys of bulks and numbers of single transfers that have not ended; `after` is where the walk goes on."""

    bulks: list[int]
    singles: list[int]
    after: int


def open_page(tx: Connection, after: int, items_max: int) -> OpenPage | None:
    """What is open beyond a number: of about so many items, at least one entity; None at the end."""
    rows = tx.execute(_OPEN, {"after": after, "items_max": items_max}).all()
    return _page(rows, rows[-1][0]) if rows else None


def open_among(tx: Connection, numbers: Sequence[int]) -> OpenPage:
    """What of these, of which there is at least one, is open."""
    return _page(tx.execute(_OPEN_AMONG, {"numbers": int_array(numbers)}).all(), max(numbers))


def _page(rows: Sequence[Any], after: int) -> OpenPage:
    return OpenPage([row[0] for row in rows if not row[1]], [row[0] for row in rows if row[1]], after)


def numbers_of(tx: Connection, ids: Sequence[bytes]) -> dict[bytes, int]:
    """The numbers of the bulks and single transfers that stand under these ids."""
    found = tx.execute(_NUMBERS, {"ids": uuid_array(ids), "width": ITEMS_PER_BULK}).all()
    return {row[0]: row[1] for row in found}


def callbacks_written(tx: Connection, ids: Sequence[bytes]) -> set[tuple[bytes, str, str, str]]:
    """(id, resource, FSP, kind) of every forward and final callback about these that stands in the database."""
    return {(row[0], row[1], row[2], row[3]) for row in tx.execute(_TOLD, {"ids": uuid_array(ids)})}


def answered_requests(tx: Connection, request_ids: Sequence[bytes]) -> set[bytes]:
    """Those of the requests that were answered by a callback of their own."""
    return set(tx.execute(_ANSWERED, {"ids": uuid_array(request_ids)}).scalars())


def bulk_errors(tx: Connection, keys: Sequence[int]) -> dict[int, FspiopError]:
    """The errors of these bulks as a whole."""
    found = tx.execute(_ERRORS, {"keys": int_array(keys)}).all()
    return {key: FspiopError(code, description) for key, code, description in found}


def ended_bulks(tx: Connection, after: int, rows_max: int) -> list[int]:
    """The keys of the next bulks that have ended and whose results are still kept."""
    return list(tx.execute(_ENDED_BULKS, {"after": after, "rows_max": rows_max}).scalars())


class UntoldResult(NamedTuple):
    """An outcome that an FSP has to be told, and no callback of it is written down."""

    bulk_transfer_id: bytes
    fsp: str
    role: str
    callback: str
    content: str
    was_refused: bool


def untold_results(tx: Connection, bulk_keys: Sequence[int]) -> list[UntoldResult]:
    """The outcomes of these bulks that nobody has written a callback for."""
    return [UntoldResult(*row) for row in tx.execute(_UNTOLD_BULKS, {"keys": int_array(bulk_keys)}).all()]


def all_singles(tx: Connection, after: int, rows_max: int) -> list[int]:
    """The keys of the next single transfers, whatever their state."""
    return list(tx.execute(_SINGLES, {"after": after, "rows_max": rows_max}).scalars())


def untold_singles(tx: Connection, transfer_keys: Sequence[int]) -> list[int]:
    """Those of these single transfers that have ended, and lack a final callback to somebody."""
    parameters = {"keys": int_array(transfer_keys), "final_transfer": _FINAL_TRANSFER}
    return list(tx.execute(_UNTOLD_SINGLES, parameters).scalars())
