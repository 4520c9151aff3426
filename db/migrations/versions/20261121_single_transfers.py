"""single transfers

Revision: 8d2fa1c4b6e3, after 7c1e90b3a5d2; written 2026-11-21 13:25:00.

Open expirations move from bulk_transfer_expiration into a table that single transfers share, with what each payer has in
flight; callbacks get a resource beside their id. The old table and the old column name go at once, because no release
that knows them was ever run beside another.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "8d2fa1c4b6e3"
down_revision = "7c1e90b3a5d2"
branch_labels = None
depends_on = None

_INSTANT = postgresql.TIMESTAMP(timezone=True)


def _created_date() -> sa.Column[object]:
    return sa.Column("created_date", _INSTANT, server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    # A migration that waits for a lock holds up everyone behind it: give up early and try again instead.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "single_transfer",
        sa.Column("transfer_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payer_fsp", sa.Text(), nullable=False),
        sa.Column("payee_fsp", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("received_date", _INSTANT, nullable=False),
        _created_date(),
        sa.PrimaryKeyConstraint("transfer_key", name=op.f("pk_single_transfer")),
    )
    op.create_table(
        "single_transfer_fulfilment",
        sa.Column("transfer_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("completed_timestamp", sa.Text(), nullable=True),
        sa.Column("received_date", _INSTANT, nullable=False),
        _created_date(),
        sa.PrimaryKeyConstraint("transfer_key", name=op.f("pk_single_transfer_fulfilment")),
    )
    _open_expirations()
    _deliveries()


def _open_expirations() -> None:
    op.create_table(
        "open_expiration",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("is_single", sa.Boolean(), nullable=False),
        sa.Column("due_date", _INSTANT, nullable=False),
        sa.Column("payer_fsp", sa.Text(), nullable=False),
        sa.Column("item_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_open_expiration")),
    )
    op.create_index("ix_open_expiration_due", "open_expiration", ["is_single", "due_date"])
    op.execute(
        """
        INSERT INTO open_expiration (number, is_single, due_date, payer_fsp, item_count)
        SELECT bulk_key, false, due_date, payer_fsp, item_count
        FROM bulk_transfer_expiration JOIN bulk_transfer USING (bulk_key)
        """
    )
    op.drop_table("bulk_transfer_expiration")


def _deliveries() -> None:
    op.add_column(
        "delivery", sa.Column("resource", sa.Text(), server_default=sa.text("'bulkTransfers'"), nullable=False)
    )
    op.alter_column("delivery", "bulk_transfer_id", new_column_name="entity_id")
    op.alter_column("delivery", "headers", nullable=True)
    op.drop_constraint(op.f("ck_delivery_callback"), "delivery")
    op.create_check_constraint(
        op.f("ck_delivery_callback"), "delivery", "callback IN ('POST', 'PUT', 'PUT_ERROR', 'PATCH')"
    )
    op.create_check_constraint(op.f("ck_delivery_resource"), "delivery", "resource IN ('bulkTransfers', 'transfers')")
    waiting = sa.text("state = 'WAITING'")
    for name in ("uq_delivery_bulk_transfer_id_fsp_kind", "ix_delivery_waiting", "ix_delivery_due"):
        op.drop_index(name, "delivery")
    op.create_index(
        "uq_delivery_entity_id_resource_fsp_kind",
        "delivery",
        ["entity_id", "resource", "fsp", "kind"],
        unique=True,
        postgresql_where=sa.text("kind <> 'ANSWER'"),
    )
    op.create_index(
        "ix_delivery_waiting",
        "delivery",
        ["fsp", "resource", "entity_id", "delivery_id"],
        postgresql_where=waiting,
    )
    op.create_index("ix_delivery_due", "delivery", ["fsp", "resource", "next_attempt_date"], postgresql_where=waiting)
