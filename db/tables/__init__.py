"""All tables. Alembic compares them with the migrations, and a test fails when they differ.

Rules (architecture §7): a step of a state machine is a row keyed by (entity, from_state); keys inside are time-ordered
bigints (`domain.identifiers`); amounts are NUMERIC(22,4); the per-transfer tables carry no foreign keys (2.6–3.3 times
dearer writes) and are proven by `bulk-switch verify`; whatever is updated in place updates no indexed column.
Bulk tables keep the names of seed 002 §4.2 (BULK-48…57) in snake_case.
"""

from db.tables.bulks import (
    bulk_processing_state,
    bulk_transfer,
    bulk_transfer_duplicate_check,
    bulk_transfer_error,
    bulk_transfer_extension,
    bulk_transfer_fulfilment,
    bulk_transfer_fulfilment_duplicate_check,
    bulk_transfer_result,
    bulk_transfer_state,
    bulk_transfer_state_change,
)
from db.tables.metadata import metadata
from db.tables.participants import (
    admin_audit,
    currency,
    funds_transfer,
    funds_transfer_state_change,
    ledger_account_type,
    participant,
    participant_currency,
    participant_endpoint,
    participant_key,
    participant_limit,
    participant_position,
    participant_position_change,
    settlement_model,
)
from db.tables.pipeline import (
    delivery,
    delivery_attempt,
    handler_progress,
    retention_horizon,
    stream_partition,
    stream_record,
    stream_topic,
)
from db.tables.singles import (
    open_expiration,
    single_transfer,
    single_transfer_fulfilment,
)
from db.tables.transfers import (
    bulk_transfer_association,
    transfer,
    transfer_state_change,
)

__all__ = [
    "admin_audit",
    "bulk_processing_state",
    "bulk_transfer",
    "bulk_transfer_association",
    "bulk_transfer_duplicate_check",
    "bulk_transfer_error",
    "bulk_transfer_extension",
    "bulk_transfer_fulfilment",
    "bulk_transfer_fulfilment_duplicate_check",
    "bulk_transfer_result",
    "bulk_transfer_state",
    "bulk_transfer_state_change",
    "currency",
    "delivery",
    "delivery_attempt",
    "funds_transfer",
    "funds_transfer_state_change",
    "handler_progress",
    "ledger_account_type",
    "metadata",
    "open_expiration",
    "participant",
    "participant_currency",
    "participant_endpoint",
    "participant_key",
    "participant_limit",
    "participant_position",
    "participant_position_change",
    "retention_horizon",
    "settlement_model",
    "single_transfer",
    "single_transfer_fulfilment",
    "stream_partition",
    "stream_record",
    "stream_topic",
    "transfer",
    "transfer_state_change",
]
