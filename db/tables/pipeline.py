"""The loop, the callbacks, and the table stream (stream/table.py)."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.tables.metadata import INSTANT, created_date, metadata

# The next offset to read, and the encoded outputs of the last batch, written with the state they belong to.
handler_progress = Table(
    "handler_progress",
    metadata,
    Column("handler", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    # Which log that offset belongs to, as the stream names it; empty until the first assignment that knows of it.
    Column("log_id", Text, nullable=True),
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
    # What it is about: bulkTransfers or transfers, and the bulkTransferId or transferId. A payer may give both the same id.
    Column("resource", Text, nullable=False, server_default=text("'bulkTransfers'")),
    Column("entity_id", Uuid, nullable=False),
    Column("fsp", Text, nullable=False),
    # FORWARD and FINAL: one per entity and FSP. ANSWER: one per request (and entity and FSP).
    Column("kind", Text, nullable=False),
    Column("request_id", Uuid, nullable=True),
    # POST, PUT, PUT_ERROR or PATCH; with the entity's id it makes the URL, from the participant's endpoint of that type.
    Column("callback", Text, nullable=False),
    Column("content", Text, nullable=False),
    # SQL NULL: `content` is another FSP's request, which is passed on as it was sent, its headers and signature included.
    Column("headers", JSONB(none_as_null=True), nullable=True),
    Column("state", Text, nullable=False, server_default=text("'WAITING'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("not_after_date", INSTANT, nullable=True),
    Column("next_attempt_date", INSTANT, nullable=False, server_default=func.now()),
    Column("lease_date", INSTANT, nullable=True),
    Column("finished_date", INSTANT, nullable=True),
    # When operators last sent it again, and how many attempts had been made before: attempts and age count from there.
    Column("renewed_date", INSTANT, nullable=False, server_default=func.now()),
    Column("renewed_attempts", Integer, nullable=False, server_default=text("0")),
    created_date(),
    CheckConstraint("kind IN ('FORWARD', 'FINAL', 'ANSWER')", name="kind"),
    CheckConstraint("resource IN ('bulkTransfers', 'transfers')", name="resource"),
    CheckConstraint("callback IN ('POST', 'PUT', 'PUT_ERROR', 'PATCH')", name="callback"),
    CheckConstraint("state IN ('WAITING', 'DELIVERED', 'DEAD')", name="state"),
    CheckConstraint("(kind = 'ANSWER') = (request_id IS NOT NULL)", name="request_id"),
    Index(
        "uq_delivery_entity_id_resource_fsp_kind",
        "entity_id",
        "resource",
        "fsp",
        "kind",
        unique=True,
        postgresql_where=text("kind <> 'ANSWER'"),
    ),
    Index("uq_delivery_request_id", "request_id", unique=True, postgresql_where=text("kind = 'ANSWER'")),
    # What waits, in the order in which it is to be sent; a row leaves this index when it is delivered or dead.
    Index(
        "ix_delivery_waiting",
        "fsp",
        "resource",
        "entity_id",
        "delivery_id",
        postgresql_where=text("state = 'WAITING'"),
    ),
    # What is due. The one updated column that is indexed: an FSP that is away may leave 100,000 rows waiting, and those
    # must not be walked to find the few that are due (a row is tried again seldom, so the index is written seldom).
    Index("ix_delivery_due", "fsp", "resource", "next_attempt_date", postgresql_where=text("state = 'WAITING'")),
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
    created_date(),
)

# What retention has removed: of this kind, everything that ended before this time may be gone.
retention_horizon = Table(
    "retention_horizon",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("horizon", INSTANT, nullable=False),
    Column("changed_date", INSTANT, nullable=False, server_default=func.now()),
    CheckConstraint("kind IN ('callbacks', 'objects')", name="kind"),
)

# The table stream (stream/table.py): topics for one machine.

stream_topic = Table(
    "stream_topic",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partitions", Integer, nullable=False),
    Column("retention_ms", BigInteger, nullable=False),
    # A topic that is dropped and made again is another log.
    Column("log_id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
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
