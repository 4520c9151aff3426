"""Bulks: a handful of rows each."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from db.tables.metadata import INSTANT, created_date, metadata

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
    created_date(),
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
    Column("to_state", Text, ForeignKey("bulk_transfer_state.bulk_transfer_state"), nullable=False),
    Column("reason", Text, nullable=True),
    created_date(),
)

# The error of a bulk as a whole: its refusal, a fulfil invalid as a whole, or the payee's own (kept word for word).
bulk_transfer_error = Table(
    "bulk_transfer_error",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("error_code", Text, nullable=False),
    Column("error_description", Text, nullable=False),
    # The callback's body, in the object store; empty once retention has removed it.
    Column("content", Text, nullable=True),
    created_date(),
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
    created_date(),
    CheckConstraint("outcome IN ('VALID', 'INVALID', 'REJECTED', 'ERROR')", name="outcome"),
)

bulk_transfer_fulfilment_duplicate_check = Table(
    "bulk_transfer_fulfilment_duplicate_check",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

# What each side was told at the end: the list that a GET shows, and the callback, which is the list or an error. Both
# contents are empty once retention has removed them.
bulk_transfer_result = Table(
    "bulk_transfer_result",
    metadata,
    Column("bulk_key", BigInteger, ForeignKey("bulk_transfer.bulk_key"), primary_key=True, autoincrement=False),
    Column("role", Text, primary_key=True),
    Column("list_content", Text, nullable=True),
    Column("callback", Text, nullable=False),
    Column("callback_content", Text, nullable=True),
    created_date(),
    CheckConstraint("role IN ('PAYER', 'PAYEE')", name="role"),
    CheckConstraint("callback IN ('PUT', 'PUT_ERROR')", name="callback"),
    CheckConstraint("(list_content IS NULL) = (callback_content IS NULL)", name="contents"),
    # What retention has not come to yet, oldest first; a row leaves this index when its contents go.
    Index("ix_bulk_transfer_result_kept", "bulk_key", postgresql_where=text("list_content IS NOT NULL")),
)
