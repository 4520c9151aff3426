"""Single transfers: what only they have beside their rows in transfer and transfer_state_change (db/tables/transfers.py).

A single transfer draws a number from the sequence of the bulks and stands at place 0 of it, where no bulk has an item, so
one key tells which is which (domain/identifiers.py).
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text, Uuid

from db.tables.metadata import INSTANT, created_date, metadata

single_transfer = Table(
    "single_transfer",
    metadata,
    Column("transfer_key", BigInteger, primary_key=True, autoincrement=False),
    Column("payer_fsp", Text, nullable=False),
    Column("payee_fsp", Text, nullable=False),
    # The POST that was accepted: with the transferId it names the object that is passed on to the payee as it was sent.
    Column("request_id", Uuid, nullable=False),
    Column("received_date", INSTANT, nullable=False),
    created_date(),
)

# The payee's answer that was accepted: its PUT /transfers/{ID} or its /error. Which of them, and whether it said COMMITTED
# or RESERVED, is the reason of the step that it caused.
single_transfer_fulfilment = Table(
    "single_transfer_fulfilment",
    metadata,
    Column("transfer_key", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", Uuid, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("completed_timestamp", Text, nullable=True),
    Column("received_date", INSTANT, nullable=False),
    created_date(),
)

# A row per bulk and per single transfer that has not ended: what is due (the timeout handler reads nothing else to find
# it), and how much each payer has in flight (the edge's bound, BULK-113).
open_expiration = Table(
    "open_expiration",
    metadata,
    # The bulk's key; of a single transfer the number that its key is made of.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("is_single", Boolean, nullable=False),
    Column("due_date", INSTANT, nullable=False),
    Column("payer_fsp", Text, nullable=False),
    Column("item_count", Integer, nullable=False),
    Index("ix_open_expiration_due", "is_single", "due_date"),
)
