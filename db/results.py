"""What each side of a bulk was told at its end, and when an unfinished bulk is due."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.documents import document


@dataclass(frozen=True, slots=True)
class BulkResult:
    """For one role (PAYER, PAYEE): the list that a GET shows, and the final callback (PUT or PUT_ERROR) with its body."""

    bulk_key: int
    role: str
    list_content: str
    callback: str
    callback_content: str


_INSERT = text("""
    INSERT INTO bulk_transfer_result (bulk_key, role, list_content, callback, callback_content)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
        bulk_key bigint, role text, list_content text, callback text, callback_content text)
""")
_SELECT = text("""
    SELECT bulk_key, role, list_content, callback, callback_content FROM bulk_transfer_result
    WHERE bulk_key = ANY(CAST(:keys AS bigint[]))
""")
_END = text("DELETE FROM bulk_transfer_expiration WHERE bulk_key = ANY(CAST(:keys AS bigint[]))")
_DUE = text("""
    SELECT bulk_key FROM bulk_transfer_expiration WHERE due_date <= clock_timestamp()
    ORDER BY due_date, bulk_key LIMIT :bulks_max
""")
_LOOK_AGAIN = text("""
    UPDATE bulk_transfer_expiration SET due_date = clock_timestamp() + make_interval(secs => :pause_ms / 1000.0)
    WHERE bulk_key = ANY(CAST(:keys AS bigint[]))
""")


def insert_results(tx: Connection, results: Sequence[BulkResult]) -> None:
    """Write the results; a bulk that has one already raises the driver's unique violation."""
    rows = document(
        {
            "bulk_key": result.bulk_key,
            "role": result.role,
            "list_content": result.list_content,
            "callback": result.callback,
            "callback_content": result.callback_content,
        }
        for result in results
    )
    tx.execute(_INSERT, {"rows": rows})


def results_of(tx: Connection, keys: Sequence[int]) -> dict[tuple[int, str], BulkResult]:
    """The results of these bulks by (bulk key, role)."""
    found = [BulkResult(*row) for row in tx.execute(_SELECT, {"keys": list(keys)}).all()]
    return {(result.bulk_key, result.role): result for result in found}


def end_expirations(tx: Connection, keys: Sequence[int]) -> None:
    """These bulks have ended: nothing is due of them any more."""
    tx.execute(_END, {"keys": list(keys)})


def due_bulks(tx: Connection, bulks_max: int) -> list[int]:
    """The keys of bulks that are past their time, the longest waiting first."""
    return list(tx.execute(_DUE, {"bulks_max": bulks_max}).scalars())


def look_again(tx: Connection, keys: Sequence[int], pause_ms: int) -> None:
    """Look at these bulks again after a pause, unless they have ended by then."""
    tx.execute(_LOOK_AGAIN, {"keys": list(keys), "pause_ms": pause_ms})
