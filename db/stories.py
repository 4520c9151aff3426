"""The rows behind the story of one transfer, and the accounts behind that of one bulk: what operators ask for by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Connection, text

from domain.identifiers import ITEMS_PER_BULK


@dataclass(frozen=True, slots=True)
class TransferFacts:
    """A transfer as it was written, with its item if it is of a bulk; what a refused item lacks is None.

    `is_single` says that it belongs to no bulk.
    """

    transfer_id: UUID
    transfer_key: int
    is_single: bool
    bulk_transfer_id: UUID | None
    payer_fsp: str
    payee_fsp: str | None
    amount: Decimal | None
    currency: str | None
    expiration: datetime | None
    received: datetime
    payer_account: int | None
    payee_account: int | None
    item_state: str | None
    item_error_code: str | None
    item_error_description: str | None
    item_changed: datetime | None
    transfer_created: datetime | None


@dataclass(frozen=True, slots=True)
class TransferStep:
    """A step of a transfer as it was recorded."""

    from_state: str
    to_state: str
    reason: str
    position: Decimal | None
    error_code: str | None
    error_description: str | None
    at: datetime


# Items are found through their bulk, a range of the key; without one the transferId is looked up in its one index.
_ITEMS = text("""
    SELECT a.transfer_id, a.transfer_key, false, b.bulk_transfer_id, b.payer_fsp, b.payee_fsp, t.amount, t.currency_id,
           b.expiration, b.received_date, t.payer_participant_currency_id, t.payee_participant_currency_id,
           a.bulk_processing_state, a.error_code, a.error_description, a.last_processed_date, t.created_date
    FROM bulk_transfer b
    JOIN bulk_transfer_association a ON a.transfer_key BETWEEN b.bulk_key * :width + 1 AND (b.bulk_key + 1) * :width - 1
    LEFT JOIN transfer t ON t.transfer_key = a.transfer_key
    WHERE b.bulk_transfer_id = :bulk_transfer_id AND a.transfer_id = :transfer_id
""")
_TRANSFER = text("""
    SELECT t.transfer_id, t.transfer_key, x.transfer_key IS NOT NULL, b.bulk_transfer_id,
           coalesce(b.payer_fsp, x.payer_fsp), coalesce(b.payee_fsp, x.payee_fsp), t.amount, t.currency_id, t.expiration,
           coalesce(b.received_date, x.received_date), t.payer_participant_currency_id,
           t.payee_participant_currency_id, a.bulk_processing_state, a.error_code, a.error_description,
           a.last_processed_date, t.created_date
    FROM transfer t
    LEFT JOIN single_transfer x ON x.transfer_key = t.transfer_key
    LEFT JOIN bulk_transfer_association a ON a.transfer_key = t.transfer_key
    LEFT JOIN bulk_transfer b ON b.bulk_key = t.transfer_key / :width AND x.transfer_key IS NULL
    WHERE t.transfer_id = :transfer_id
""")
_STEPS = text("""
    SELECT from_state, to_state, reason, position, error_code, error_description, created_date
    FROM transfer_state_change WHERE transfer_key = :transfer_key
""")
_ACCOUNTS = text("""
    SELECT DISTINCT unnest(ARRAY[payer_participant_currency_id, payee_participant_currency_id]) FROM transfer
    WHERE transfer_key BETWEEN :bulk_key * :width + 1 AND (:bulk_key + 1) * :width - 1
""")


def read_item(tx: Connection, bulk_transfer_id: UUID, transfer_id: UUID) -> TransferFacts | None:
    """The item of a bulk with this transferId, with its transfer if it became one."""
    row = tx.execute(
        _ITEMS, {"bulk_transfer_id": bulk_transfer_id, "transfer_id": transfer_id, "width": ITEMS_PER_BULK}
    ).first()
    return None if row is None else TransferFacts(*row)


def read_transfer(tx: Connection, transfer_id: UUID) -> TransferFacts | None:
    """The transfer with this transferId, of a bulk or single."""
    row = tx.execute(_TRANSFER, {"transfer_id": transfer_id, "width": ITEMS_PER_BULK}).one_or_none()
    return None if row is None else TransferFacts(*row)


def read_transfer_steps(tx: Connection, transfer_key: int) -> list[TransferStep]:
    """The steps in their order: each begins where the one before ended."""
    by_from_state = {row.from_state: TransferStep(*row) for row in tx.execute(_STEPS, {"transfer_key": transfer_key})}
    steps: list[TransferStep] = []
    state = "-"
    while state in by_from_state:
        steps.append(by_from_state.pop(state))
        state = steps[-1].to_state
    return steps


def accounts_of_bulk(tx: Connection, bulk_key: int) -> Sequence[int]:
    """The accounts on which money of the bulk's transfers moves."""
    return [
        account
        for account in tx.execute(_ACCOUNTS, {"bulk_key": bulk_key, "width": ITEMS_PER_BULK}).scalars()
        if account is not None
    ]
