"""One URL chooses the stream: `table:`, in the database, or `kafka://host:9092,host2:9092`, with `/namespace` if the
cluster is shared with others.
"""

import re

from sqlalchemy import Engine

from stream.interface import Stream
from stream.kafka import KafkaStream
from stream.kafka_security import KafkaSecurity
from stream.table import TableStream

TABLE_URL = "table:"
_KAFKA_URL = re.compile(
    r"kafka://(?P<servers>[^/,\s@]+:\d+(?:,[^/,\s@]+:\d+)*)(?:/(?P<namespace>[A-Za-z0-9_-]{1,60}))?/?"
)


def open_stream(
    url: str,
    engine: Engine,
    *,
    replication_factor: int = 1,
    session_timeout_ms: int = 6_000,
    partitions_kept_ms: int = 60_000,
    security: KafkaSecurity | None = None,
) -> Stream:
    """The stream behind the URL; the table stream lives in the engine's database. Raises ValueError.

    The other arguments concern Kafka only, but for `partitions_kept_ms`. Nothing is connected yet.
    """
    if url == TABLE_URL:
        return TableStream(engine, partitions_kept_ms=partitions_kept_ms)
    match = _KAFKA_URL.fullmatch(url)
    if "@" in url:
        # Not repeated: what stands before it may be a password.
        raise ValueError("the stream URL carries no user and no password; they are settings of their own")
    if match is None:
        raise ValueError(f"the stream URL must be table: or kafka://host:port[,host:port…][/namespace], not {url!r}")
    return KafkaStream(
        match["servers"],
        namespace=match["namespace"] or "",
        replication_factor=replication_factor,
        session_timeout_ms=session_timeout_ms,
        partitions_kept_ms=partitions_kept_ms,
        security=security,
    )
