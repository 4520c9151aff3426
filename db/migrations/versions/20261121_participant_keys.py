"""participant keys

Revision: 7c1e90b3a5d2, after 59ddeb2b671b; written 2026-11-21 13:25:00.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "7c1e90b3a5d2"
down_revision = "59ddeb2b671b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A migration that waits for a lock holds up everyone behind it: give up early and try again instead.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "participant_key",
        sa.Column("participant_key_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("participant_id", sa.Integer(), nullable=False),
        sa.Column("kid", sa.Text(), nullable=True),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("valid_from", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("valid_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_date", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_date", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.CheckConstraint("algorithm IN ('RS256', 'ES256')", name=op.f("ck_participant_key_algorithm")),
        sa.CheckConstraint("valid_until > valid_from", name=op.f("ck_participant_key_valid_until")),
        sa.ForeignKeyConstraint(
            ["participant_id"],
            ["participant.participant_id"],
            name=op.f("fk_participant_key_participant_id_participant"),
        ),
        sa.PrimaryKeyConstraint("participant_key_id", name=op.f("pk_participant_key")),
        sa.UniqueConstraint(
            "participant_id", "fingerprint", name=op.f("uq_participant_key_participant_id_fingerprint")
        ),
    )
    op.create_index(
        "uq_participant_key_participant_id_kid",
        "participant_key",
        ["participant_id", "kid"],
        unique=True,
        postgresql_where=sa.text("revoked_date IS NULL"),
    )
