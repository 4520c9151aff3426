"""What each side of a bulk was told at its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.documents import document


@dataclass(frozen=True, slots=True)
class BulkResult:
    """For one role (PAYER, PAYEE): the list that a GET shows, and the final callback (PUT or PUT_ERROR) with its body.

    The contents are None once retention has removed them.
    """

    bulk_key: int
    role: str
    list_content: str | None
    callback: str
    callback_content: str | None


_INSERT = text("""
    INSERT INTO bulk_transfer_result (bulk_key, role, list_content, callback, callback_content)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
        bulk_key bigint, role text, list_content text, callback text, callback_content text)
""")
_SELECT = text("""
    SELECT bulk_key, role, list_content, callback, callback_content FROM bulk_transfer_result
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
