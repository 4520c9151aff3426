"""All tables. Alembic compares them with the migrations, and a test fails when they differ.

Rules (architecture §7): a step of a state machine is a row keyed by (entity, from_state); keys inside are time-ordered
bigints (`domain.identifiers`); amounts are NUMERIC(22,4); the per-transfer tables carry no foreign keys (2.6–3.3 times
dearer writes) and are proven by `bulk-switch verify`; whatever is updated in place updates no indexed column.
Bulk tables keep the names of seed 002 §4.2 (BULK-48…57) in snake_case.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

AMOUNT = Numeric(22, 4)
INSTANT = TIMESTAMP(timezone=True)


def _created_date() -> Column[object]:
    return Column("created_date", INSTANT, nullable=False, server_default=func.now())


# ---------------------------------------------------------------------------------------------------------------------
# Reference data: who takes part, with which accounts, limits and addresses. Foreign keys hold here.

currency = Table(
    "currency",
    metadata,
    Column("currency_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scale", SmallInteger, nullable=False),
)

ledger_account_type = Table(
    "ledger_account_type",
    metadata,
    Column("ledger_account_type", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("is_settleable", Boolean, nullable=False, server_default=text("false")),
)

settlement_model = Table(
    "settlement_model",
    metadata,
    Column("settlement_model_id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("settlement_granularity", Text, nullable=False),
    Column("settlement_interchange", Text, nullable=False),
    Column("settlement_delay", Text, nullable=False),
    # No currency: the default model, for every currency that has none of its own.
    Column("currency_id", Text, ForeignKey("currency.currency_id"), nullable=True),
    Column("require_liquidity_check", Boolean, nullable=False),
    Column("ledger_account_type", Text, ForeignKey("ledger_account_type.ledger_account_type"), nullable=False),
    Column("settlement_account_type", Text, ForeignKey("ledger_account_type.ledger_account_type"), nullable=False),
    Column("auto_position_reset", Boolean, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    _created_date(),
)

participant = Table(
    "participant",
    metadata,
    Column("participant_id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("is_proxy", Boolean, nullable=False, server_default=text("false")),
    _created_date(),
    Column("created_by", Text, nullable=False),
)

# An account: a participant's ledger of one type in one currency.
participant_currency = Table(
    "participant_currency",
    metadata,
    Column("participant_currency_id", Integer, primary_key=True, autoincrement=True),
    Column("participant_id", Integer, ForeignKey("participant.participant_id"), nullable=False),
    Column("currency_id", Text, ForeignKey("currency.currency_id"), nullable=False),
    Column(
        "ledger_account_type", Text, ForeignKey("ledger_account_type.ledger_account_type"), nullable=False
    ),
    Column("is_active", Boolean, nullable=False, server_default=text("false")),
    _created_date(),
    Column("created_by", Text, nullable=False),
    UniqueConstraint("participant_id", "currency_id", "ledger_account_type"),
)

# The one row that is locked when money moves; written for every account when the account is made.
participant_position = Table(
    "participant_position",
    metadata,
    Column(
        "participant_currency_id",
        Integer,
        ForeignKey("participant_currency.participant_currency_id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("value", AMOUNT, nullable=False, server_default=text("0")),
    Column("reserved_value", AMOUNT, nullable=False, server_default=text("0")),
    Column("changed_date", INSTANT, nullable=False, server_default=func.now()),
    postgresql_with={"fillfactor": "20"},
)

participant_limit = Table(
    "participant_limit",
    metadata,
    Column(
        "participant_currency_id",
        Integer,
        ForeignKey("participant_currency.participant_currency_id"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("type", Text, primary_key=True),
    Column("value", AMOUNT, nullable=False),
    Column("alarm_percentage", Numeric(5, 2), nullable=False, server_default=text("10")),
    Column("changed_date", INSTANT, nullable=False, server_default=func.now()),
    CheckConstraint("type IN ('NET_DEBIT_CAP')", name="type"),
)

participant_endpoint = Table(
    "participant_endpoint",
    metadata,
    Column("participant_id", Integer, ForeignKey("participant.participant_id"), primary_key=True, autoincrement=False),
    Column("type", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("changed_date", INSTANT, nullable=False, server_default=func.now()),
)

# Money that a participant brings in or takes out, at the hub's bank; a machine of its own, without cycles too.
funds_transfer = Table(
    "funds_transfer",
    metadata,
    Column("transfer_id", Uuid, primary_key=True),
    Column(
        "participant_currency_id",
        Integer,
        ForeignKey("participant_currency.participant_currency_id"),
        nullable=False,
    ),
    Column(
        "hub_participant_currency_id",
        Integer,
        ForeignKey("participant_currency.participant_currency_id"),
        nullable=False,
    ),
    Column("action", Text, nullable=False),
    Column("amount", AMOUNT, nullable=False),
    Column("reason", Text, nullable=False),
    Column("external_reference", Text, nullable=False),
    Column("extension_list", JSONB, nullable=True),
    _created_date(),
    CheckConstraint("action IN ('recordFundsIn', 'recordFundsOutPrepareReserve')", name="action"),
    CheckConstraint("amount > 0", name="amount"),
)

funds_transfer_state_change = Table(
    "funds_transfer_state_change",
    metadata,
    Column("transfer_id", Uuid, ForeignKey("funds_transfer.transfer_id"), primary_key=True),
    Column("from_state", Text, primary_key=True),
    Column("to_state", Text, nullable=False),
    Column("reason", Text, nullable=True),
    # The participant's settlement account after the step.
    Column("position", AMOUNT, nullable=False),
    _created_date(),
)

admin_audit = Table(
    "admin_audit",
    metadata,
    Column("admin_audit_id", BigInteger, primary_key=True, autoincrement=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSONB, nullable=True),
    Column("after", JSONB, nullable=True),
    _created_date(),
)

# ---------------------------------------------------------------------------------------------------------------------
# Bulks: a handful of rows each.

bulk_transfer_state = Table(
    "bulk_transfer_state",
    metadata,
    Column("bulk_transfer_state", Text, primary_key=True),
    Column("enumeration", Text, nullable=False),
)

bulk_processing_state = Table(
    "bulk_processing_state", metadata, Column("bulk_processing_state", Text, primary_key=True)
)

bulk_transfer = Table(
    "bulk_transfer",
    metadata,
    Column("bulk_key", BigInteger, primary_key=True, autoincrement=True),
    Column("bulk_transfer_id", Uuid, nullable=False, unique=True),
    # What a refused request did not say, or said wrongly, stays empty.
    Column("bulk_quote_id", Uuid, nullable=True),
    Column("payer_fsp", Text, nullable=False),
    Column("payee_fsp", Text, nullable=True),
    Column("expiration", INSTANT, nullable=True),
    Column("item_count", Integer, nullable=False),
    Column("request_id", Uuid, nullable=False),
    Column("received_date", INSTANT, nullable=False),
    _created_date(),
)

bulk_transfer_duplicate_check = Table(
    "bulk_transfer_duplicate_check",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

bulk_transfer_state_change = Table(
    "bulk_transfer_state_change",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("from_state", Text, primary_key=True),
    Column(
        "to_state", Text, ForeignKey("bulk_transfer_state.bulk_transfer_state"), nullable=False
    ),
    Column("reason", Text, nullable=True),
    _created_date(),
)

# The error of a bulk as a whole: its refusal, a fulfil invalid as a whole, or the payee's own (kept word for word).
bulk_transfer_error = Table(
    "bulk_transfer_error",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("error_code", Text, nullable=False),
    Column("error_description", Text, nullable=False),
    # The callback's body, in the object store.
    Column("content", Text, nullable=False),
    _created_date(),
)

bulk_transfer_extension = Table(
    "bulk_transfer_extension",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("is_fulfilment", Boolean, primary_key=True),
    Column("number", SmallInteger, primary_key=True),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
)

bulk_transfer_fulfilment = Table(
    "bulk_transfer_fulfilment",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("request_id", Uuid, nullable=False),
    # What the payee said: COMPLETED or REJECTED; nothing after its PUT /error.
    Column("bulk_transfer_state", Text, nullable=True),
    Column("completed_timestamp", Text, nullable=True),
    # VALID, INVALID (as a whole), REJECTED (by the payee) or ERROR (its PUT /error).
    Column("outcome", Text, nullable=False),
    Column("received_date", INSTANT, nullable=False),
    _created_date(),
    CheckConstraint("outcome IN ('VALID', 'INVALID', 'REJECTED', 'ERROR')", name="outcome"),
)

bulk_transfer_fulfilment_duplicate_check = Table(
    "bulk_transfer_fulfilment_duplicate_check",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

# What each side was told at the end: the list that a GET shows, and the callback, which is the list or an error.
bulk_transfer_result = Table(
    "bulk_transfer_result",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("role", Text, primary_key=True),
    Column("list_content", Text, nullable=False),
    Column("callback", Text, nullable=False),
    Column("callback_content", Text, nullable=False),
    _created_date(),
    CheckConstraint("role IN ('PAYER', 'PAYEE')", name="role"),
    CheckConstraint("callback IN ('PUT', 'PUT_ERROR')", name="callback"),
)

# A row per bulk that has not ended; the timeout handler reads nothing else to find what is due.
bulk_transfer_expiration = Table(
    "bulk_transfer_expiration",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("due_date", INSTANT, nullable=False, index=True),
)

# ---------------------------------------------------------------------------------------------------------------------
# Per transfer: as few rows as keep every step (five: item, transfer, and a row per step but the first two in one).

bulk_transfer_association = Table(
    "bulk_transfer_association",
    metadata,
    Column("transfer_key", BigInteger, primary_key=True, autoincrement=False),
    Column("transfer_id", Uuid, nullable=False),
    Column("bulk_processing_state", Text, nullable=False),
    Column("error_code", Text, nullable=True),
    Column("error_description", Text, nullable=True),
    Column("last_processed_date", INSTANT, nullable=False, server_default=func.now()),
    # Each row is updated twice in its life, without touching an index.
    postgresql_with={"fillfactor": "50"},
)

transfer = Table(
    "transfer",
    metadata,
    Column("transfer_key", BigInteger, primary_key=True, autoincrement=False),
    Column("transfer_id", Uuid, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),
    Column("amount", AMOUNT, nullable=False),
    Column("currency_id", Text, nullable=False),
    # Both legs: the payer's POSITION account and the payee's; empty where the account does not exist (INVALID).
    Column("payer_participant_currency_id", Integer, nullable=True),
    Column("payee_participant_currency_id", Integer, nullable=True),
    Column("condition", LargeBinary, nullable=True),
    Column("expiration", INSTANT, nullable=False),
    _created_date(),
)

transfer_state_change = Table(
    "transfer_state_change",
    metadata,
    Column("transfer_key", BigInteger, primary_key=True, autoincrement=False),
    Column("from_state", Text, primary_key=True),
    Column("to_state", Text, nullable=False),
    # The action of the message that caused the step.
    Column("reason", Text, nullable=False),
    # The account's position after the step, where money moved: the payer's, or after COMMITTED the payee's.
    Column("position", AMOUNT, nullable=True),
    Column("fulfilment", LargeBinary, nullable=True),
    Column("error_code", Text, nullable=True),
    Column("error_description", Text, nullable=True),
    _created_date(),
)

# ---------------------------------------------------------------------------------------------------------------------
# The loop, and the callbacks.

# The next offset to read, and the encoded outputs of the last batch, written with the state they belong to.
handler_progress = Table(
    "handler_progress",
    metadata,
    Column("handler", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("outputs", LargeBinary, nullable=True),
    # The producer's clock on the last record that was read.
    Column("read_date", INSTANT, nullable=True),
    Column("changed_date", INSTANT, nullable=False, server_default=func.now()),
    postgresql_with={"fillfactor": "20"},
)

delivery = Table(
    "delivery",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=True),
    Column("bulk_transfer_id", Uuid, nullable=False),
    Column("fsp", Text, nullable=False),
    # FORWARD and FINAL: one per bulk and FSP. ANSWER: one per request (and bulk and FSP).
    Column("kind", Text, nullable=False),
    Column("request_id", Uuid, nullable=True),
    # POST, PUT or PUT_ERROR; with the bulk's id it makes the URL, from the participant's endpoint of that type.
    Column("callback", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'WAITING'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("not_after_date", INSTANT, nullable=True),
    Column("next_attempt_date", INSTANT, nullable=False, server_default=func.now()),
    Column("lease_date", INSTANT, nullable=True),
    Column("finished_date", INSTANT, nullable=True),
    _created_date(),
    CheckConstraint("kind IN ('FORWARD', 'FINAL', 'ANSWER')", name="kind"),
    CheckConstraint("callback IN ('POST', 'PUT', 'PUT_ERROR')", name="callback"),
    CheckConstraint("state IN ('WAITING', 'DELIVERED', 'DEAD')", name="state"),
    CheckConstraint("(kind = 'ANSWER') = (request_id IS NOT NULL)", name="request_id"),
    Index(
        "uq_delivery_bulk_transfer_id_fsp_kind",
        "bulk_transfer_id",
        "fsp",
        "kind",
        unique=True,
        postgresql_where=text("kind <> 'ANSWER'"),
    ),
    Index("uq_delivery_request_id", "request_id", unique=True, postgresql_where=text("kind = 'ANSWER'")),
    # What waits, in the order in which it is to be sent; a row leaves this index when it is delivered or dead.
    Index(
        "ix_delivery_waiting", "fsp", "bulk_transfer_id", "delivery_id", postgresql_where=text("state = 'WAITING'")
    ),
)

delivery_attempt = Table(
    "delivery_attempt",
    metadata,
    Column("delivery_id", BigInteger, ForeignKey("delivery.delivery_id"), primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("url", Text, nullable=True),
    # The HTTP status of the answer, or why there was none.
    Column("status", Integer, nullable=True),
    Column("error", Text, nullable=True),
    Column("duration_ms", Integer, nullable=False),
    _created_date(),
)

# ---------------------------------------------------------------------------------------------------------------------
# The table stream (stream/table.py): topics for one machine.

stream_topic = Table(
    "stream_topic",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partitions", Integer, nullable=False),
)

# Appending locks this row, so that commit order is offset order and no reader skips a record.
stream_partition = Table(
    "stream_partition",
    metadata,
    Column("topic", Text, ForeignKey("stream_topic.topic"), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("start_offset", BigInteger, nullable=False, server_default=text("0")),
    Column("end_offset", BigInteger, nullable=False, server_default=text("0")),
    postgresql_with={"fillfactor": "20"},
)

stream_record = Table(
    "stream_record",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("record_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=True),
    Column("appended_date", INSTANT, nullable=False, server_default=func.now()),
)
