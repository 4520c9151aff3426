"""Per transfer: an item, a transfer, and a row per step; as few rows as keep every step."""

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
)

from db.tables.metadata import AMOUNT, INSTANT, created_date, metadata

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
    created_date(),
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
    created_date(),
)
