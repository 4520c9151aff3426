"""Appending to the table stream: one statement and one transaction per `produce`, for any records, topics and partitions.

It locks the rows of the partitions in (topic, partition) order, hands out offsets under these locks, inserts the records
and notifies who waits. A lock is held until the commit, so commit order is offset order, and a reader that sees an offset
sees all before it. When `produce` returns the records are durable. When it raises StreamUnavailable they may or may not
have been appended, all of them or none.

A topic's notifications go to a channel of its own; their payload is the numbers of the partitions that got records, or
`members` when a group changed.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Engine

from stream.interface import NewRecord, partition_of
from stream.limits import check_size
from stream.session import Session, open_session, unavailable

# PostgreSQL refuses payloads of 8,000 bytes; without numbers every reader of the topic looks.
_PAYLOAD_CHARACTERS_MAX = 7_000

# Locking in a CTE of its own gives the order; the UPDATE then reads each row as it is under the lock, not as it was in
# the snapshot from before the wait.
_APPEND = """
    WITH wanted AS (
        SELECT * FROM unnest(CAST(%b AS text[]), CAST(%b AS int4[]), CAST(%b AS int4[]))
            WITH ORDINALITY AS wanted(topic, partition, records, destination)
    ), locked AS MATERIALIZED (
        SELECT topic, partition, wanted.records, wanted.destination
        FROM wanted JOIN stream_partition USING (topic, partition)
        ORDER BY topic, partition
        FOR NO KEY UPDATE OF stream_partition
    ), moved AS (
        UPDATE stream_partition SET end_offset = stream_partition.end_offset + locked.records
        FROM locked
        WHERE stream_partition.topic = locked.topic AND stream_partition.partition = locked.partition
        RETURNING locked.destination, stream_partition.topic, stream_partition.partition,
                  stream_partition.end_offset - locked.records AS first_offset
    ), appended AS (
        INSERT INTO stream_record (topic, partition, record_offset, key, value, headers, appended_date)
        SELECT moved.topic, moved.partition, moved.first_offset + new.position, new.key, new.value,
               CAST(new.headers AS jsonb), to_timestamp(%s / 1000.0)
        FROM unnest(CAST(%b AS int4[]), CAST(%b AS int4[]), CAST(%b AS bytea[]), CAST(%b AS bytea[]), CAST(%b AS text[]))
            AS new(destination, position, key, value, headers)
        JOIN moved USING (destination)
    )
    SELECT (SELECT count(*) FROM moved), pg_notify(channel, payload)
    FROM unnest(CAST(%b AS text[]), CAST(%b AS text[])) AS notification(channel, payload)
    """


def channel_of(topic: str) -> str:
    """The channel that a topic's notifications go to; a topic's own name may be too long for one."""
    return f"stream_{hashlib.sha256(topic.encode()).hexdigest()[:32]}"


class TableProducer:
    """Implements stream.interface.Producer. Not safe for two threads; connects again after StreamUnavailable."""

    def __init__(self, engine: Engine, partitions: Callable[[str], int]) -> None:
        self._engine = engine
        self._partitions = partitions
        self._session: Session | None = None

    def produce(self, records: Iterable[NewRecord]) -> None:
        """Append in one transaction and return when it is durable; StreamUnavailable, UnknownTopic, RecordTooLarge."""
        parameters, destinations = self._parameters(records)
        if not destinations:
            return
        if self._session is None:
            self._session = open_session(self._engine)
        try:
            with unavailable("append"):
                row = self._session.execute(_APPEND, parameters).fetchone()
        except BaseException:
            self.close()
            raise
        assert row is not None
        assert row[0] == destinations, "a topic lost its partitions"

    def wait_for_acks(self, timeout_ms: int) -> None:
        """What `produce` returned for is durable."""

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _parameters(self, records: Iterable[NewRecord]) -> tuple[tuple[Any, ...], int]:
        """What _APPEND wants, column by column, and the number of partitions that get records."""
        # (topic, partition) -> its number among the destinations, counted from 1, and its records so far.
        destinations: dict[tuple[str, int], list[int]] = {}
        rows: list[tuple[int, int, bytes, bytes, str | None]] = []
        for record in records:
            check_size(record)
            place = record.topic, partition_of(record.key, self._partitions(record.topic))
            destination = destinations.setdefault(place, [len(destinations) + 1, 0])
            rows.append((destination[0], destination[1], record.key, record.value, _headers_text(record)))
            destination[1] += 1
        if not rows:
            return (), 0
        topics, partitions = map(list, zip(*destinations, strict=True))
        counts = [count for _number, count in destinations.values()]
        columns = [list(column) for column in zip(*rows, strict=True)]
        channels, payloads = map(list, zip(*_notifications(destinations), strict=True))
        return (topics, partitions, counts, time.time_ns() // 1_000_000, *columns, channels, payloads), len(counts)


def _headers_text(record: NewRecord) -> str | None:
    if not record.headers:
        return None
    return json.dumps([[name, value.hex()] for name, value in record.headers])


def _notifications(destinations: Iterable[tuple[str, int]]) -> list[tuple[str, str]]:
    """A channel and a payload for each topic."""
    numbers: dict[str, list[str]] = {}
    for topic, partition in destinations:
        numbers.setdefault(topic, []).append(str(partition))
    payloads = {topic: ",".join(partitions) for topic, partitions in numbers.items()}
    return [
        (channel_of(topic), payload if len(payload) <= _PAYLOAD_CHARACTERS_MAX else "")
        for topic, payload in payloads.items()
    ]
