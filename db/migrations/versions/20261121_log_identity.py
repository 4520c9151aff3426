"""log identity

Revision: a41c7e52d908, after 9e30b2d5c7f4; written 2026-11-21 16:45:00.

A progress row remembers which log its offset belongs to, and a topic of the table stream gets an id of its own. Rows that are
there keep NULL until their next assignment. The release before writes both tables without naming the new columns, so the two
can run side by side.
"""

import sqlalchemy as sa
from alembic import op

revision = "a41c7e52d908"
down_revision = "9e30b2d5c7f4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A migration that waits for a lock holds up everyone behind it: give up early and try again instead.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("handler_progress", sa.Column("log_id", sa.Text(), nullable=True))
    op.add_column(
        "stream_topic", sa.Column("log_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False)
    )
