"""retention

Revision: 9e30b2d5c7f4, after 8d2fa1c4b6e3; written 2026-11-21 13:25:00.

What was told at a bulk's end may be removed after a time, and the history of positions, which `bulk-switch verify` proves
reservations with, begins. Every account that is there gets one row to begin with, from which the rest is proven.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "9e30b2d5c7f4"
down_revision = "8d2fa1c4b6e3"
branch_labels = None
depends_on = None

_INSTANT = postgresql.TIMESTAMP(timezone=True)
_AMOUNT = sa.Numeric(precision=22, scale=4)


def upgrade() -> None:
    # A migration that waits for a lock holds up everyone behind it: give up early and try again instead.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "retention_horizon",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("horizon", _INSTANT, nullable=False),
        sa.Column("changed_date", _INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('callbacks', 'objects')", name=op.f("ck_retention_horizon_kind")),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_retention_horizon")),
    )
    op.alter_column("bulk_transfer_error", "content", nullable=True)
    op.alter_column("bulk_transfer_result", "list_content", nullable=True)
    op.alter_column("bulk_transfer_result", "callback_content", nullable=True)
    op.create_check_constraint(
        op.f("ck_bulk_transfer_result_contents"),
        "bulk_transfer_result",
        "(list_content IS NULL) = (callback_content IS NULL)",
    )
    op.create_index(
        "ix_bulk_transfer_result_kept",
        "bulk_transfer_result",
        ["bulk_key"],
        postgresql_where=sa.text("list_content IS NOT NULL"),
    )
    _position_changes()


def _position_changes() -> None:
    op.create_table(
        "participant_position_change",
        sa.Column("participant_position_change_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("participant_currency_id", sa.Integer(), nullable=False),
        sa.Column("value_before", _AMOUNT, nullable=False),
        sa.Column("value", _AMOUNT, nullable=False),
        sa.Column("reserved_value", _AMOUNT, nullable=False),
        sa.Column("cover", _AMOUNT, nullable=False),
        sa.Column("net_debit_cap", _AMOUNT, nullable=True),
        sa.Column("created_date", _INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("participant_position_change_id", name=op.f("pk_participant_position_change")),
    )
    op.execute(
        """
        INSERT INTO participant_position_change
            (participant_currency_id, value_before, value, reserved_value, cover, net_debit_cap)
        SELECT p.participant_currency_id, p.value, p.value, p.reserved_value, -coalesce(s.value, 0), l.value
        FROM participant_position p
        JOIN participant_currency a ON a.participant_currency_id = p.participant_currency_id
        LEFT JOIN participant_currency c ON c.participant_id = a.participant_id AND c.currency_id = a.currency_id
             AND c.ledger_account_type = 'SETTLEMENT'
        LEFT JOIN participant_position s ON s.participant_currency_id = c.participant_currency_id
        LEFT JOIN participant_limit l ON l.participant_currency_id = p.participant_currency_id
             AND l.type = 'NET_DEBIT_CAP'
        """
    )
