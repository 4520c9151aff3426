"""Where the request that brought a transfer is kept."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from domain.identifiers import ITEMS_PER_BULK

# A bulk's item and a single transfer have keys of their own kinds, so one of the two joins finds nothing.
_REQUEST_OF = text(
    """
    SELECT coalesce(bulk_transfer.bulk_transfer_id, transfer.transfer_id) AS entity_id,
           coalesce(bulk_transfer.request_id, single_transfer.request_id) AS request_id
    FROM transfer
    LEFT JOIN single_transfer ON single_transfer.transfer_key = transfer.transfer_key
    LEFT JOIN bulk_transfer ON bulk_transfer.bulk_key = transfer.transfer_key / CAST(:items_per_bulk AS bigint)
                           AND transfer.transfer_key % CAST(:items_per_bulk AS bigint) <> 0
    WHERE transfer.transfer_id = :transfer_id
    """
)


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """The bulk's or the single transfer's id, and the request's: together they name an object."""

    entity_id: UUID
    request_id: UUID


def request_of(tx: Connection, transfer_id: UUID) -> TransferRequest | None:
    """The request that brought a transfer, or None where there is no transfer of that id."""
    row = tx.execute(_REQUEST_OF, {"transfer_id": transfer_id, "items_per_bulk": ITEMS_PER_BULK}).one_or_none()
    return None if row is None or row.request_id is None else TransferRequest(row.entity_id, row.request_id)
