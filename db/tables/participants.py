"""Who takes part, with which accounts, limits and addresses, and the funds they bring in. Foreign keys hold here."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.tables.metadata import AMOUNT, INSTANT, created_date, metadata

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
    created_date(),
)

participant = Table(
    "participant",
    metadata,
    Column("participant_id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("is_proxy", Boolean, nullable=False, server_default=text("false")),
    created_date(),
    Column("created_by", Text, nullable=False),
)

# An account: a participant's ledger of one type in one currency.
participant_currency = Table(
    "participant_currency",
    metadata,
    Column("participant_currency_id", Integer, primary_key=True, autoincrement=True),
    Column("participant_id", Integer, ForeignKey("participant.participant_id"), nullable=False),
    Column("currency_id", Text, ForeignKey("currency.currency_id"), nullable=False),
    Column("ledger_account_type", Text, ForeignKey("ledger_account_type.ledger_account_type"), nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("false")),
    created_date(),
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

# A row per account and transaction that moved money on it, written under the account's lock, so that the numbers stand in
# the order of the locks: what the account held before and after, and what it could have been reserved up to. With the
# positions in transfer_state_change this proves afterwards that nothing was reserved past cover or cap (db/verification.py).
participant_position_change = Table(
    "participant_position_change",
    metadata,
    Column("participant_position_change_id", BigInteger, Identity(), primary_key=True),
    Column("participant_currency_id", Integer, nullable=False),
    Column("value_before", AMOUNT, nullable=False),
    Column("value", AMOUNT, nullable=False),
    Column("reserved_value", AMOUNT, nullable=False),
    # Minus the value of the SETTLEMENT account; and the net debit cap, if one was set.
    Column("cover", AMOUNT, nullable=False),
    Column("net_debit_cap", AMOUNT, nullable=True),
    created_date(),
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

# The public keys that a participant signs its requests with: several side by side while one replaces the other. A revoked
# key stays, so that it cannot come back.
participant_key = Table(
    "participant_key",
    metadata,
    Column("participant_key_id", Integer, primary_key=True, autoincrement=True),
    Column("participant_id", Integer, ForeignKey("participant.participant_id"), nullable=False),
    Column("kid", Text, nullable=True),
    Column("algorithm", Text, nullable=False),
    # SubjectPublicKeyInfo in DER, and its SHA-256 in hex.
    Column("public_key", LargeBinary, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("valid_from", INSTANT, nullable=False, server_default=func.now()),
    Column("valid_until", INSTANT, nullable=True),
    Column("revoked_date", INSTANT, nullable=True),
    created_date(),
    Column("created_by", Text, nullable=False),
    CheckConstraint("algorithm IN ('RS256', 'ES256')", name="algorithm"),
    CheckConstraint("valid_until > valid_from", name="valid_until"),
    UniqueConstraint("participant_id", "fingerprint"),
    Index(
        "uq_participant_key_participant_id_kid",
        "participant_id",
        "kid",
        unique=True,
        postgresql_where=text("revoked_date IS NULL"),
    ),
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
    created_date(),
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
    created_date(),
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
    created_date(),
)
