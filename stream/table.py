"""A stream in three tables of PostgreSQL: topics for one machine, durable, with nothing to install.

Appending is one statement and one transaction per `produce`, for any number of records, topics and partitions: it locks
the rows of the partitions in (topic, partition) order, hands out offsets under these locks, inserts the records and
notifies who waits. A lock is held until the commit, so commit order is offset order, and a reader that sees an offset
sees all before it. When `produce` returns the records are durable. When it raises StreamUnavailable they may or may not
have been appended, all of them or none.

Reading, and who owns which partition, is `table_consumer`. A topic's notifications go to a channel of its own; their
payload is the numbers of the partitions that got records, or `members` when a group changed.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Engine, text

from stream.interface import (
    NewRecord,
    OffsetOutOfRange,
    OnAssign,
    OnRevoke,
    Partition,
    Record,
    TopicDescription,
    UnknownTopic,
    partition_of,
)
from stream.limits import check_size
from stream.session import Session, open_session, unavailable
from stream.table_consumer import TableConsumer, record_of

# A deletion of more than this is split, so that it neither runs for minutes nor fills the WAL at once.
_TRIM_RECORDS_MAX = 10_000
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

_CREATE_TOPICS = text(
    """
    WITH made AS (
        INSERT INTO stream_topic (topic, partitions, retention_ms)
        SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int4[]), CAST(:retentions_ms AS int8[]))
        ON CONFLICT (topic) DO NOTHING
        RETURNING topic, partitions
    )
    INSERT INTO stream_partition (topic, partition)
    SELECT topic, generate_series(0, partitions - 1) FROM made
    """
)

_PARTITIONS = text("SELECT partitions FROM stream_topic WHERE topic = :topic")

_OFFSETS = text("SELECT partition, start_offset, end_offset FROM stream_partition WHERE topic = :topic")

_READ = text(
    """
    SELECT partition, record_offset, key, value, headers, CAST(extract(epoch FROM appended_date) * 1000 AS int8)
    FROM stream_record
    WHERE topic = :topic AND partition = :partition AND record_offset >= :offset
    ORDER BY record_offset LIMIT :records_max
    """
)

_MOVE_START = text(
    """
    UPDATE stream_partition SET start_offset = greatest(start_offset, :before_offset)
    WHERE topic = :topic AND partition = :partition AND end_offset >= :before_offset
    """
)

# The offset behind the oldest records that are past their time, as far as a bounded look from the start can tell.
_RETAINED_FROM = text(
    """
    SELECT coalesce(min(record_offset) FILTER (WHERE appended_date >= now() - make_interval(secs => retention_ms / 1000.0)),
                    max(record_offset) + 1)
    FROM (
        SELECT record_offset, appended_date FROM stream_record
        WHERE topic = :topic AND partition = :partition AND record_offset < :next_offset
        ORDER BY record_offset LIMIT :records_max
    ) AS oldest, stream_topic
    WHERE stream_topic.topic = :topic
    """
)

_OLDEST = text("SELECT min(record_offset) FROM stream_record WHERE topic = :topic AND partition = :partition")

_DELETE = text(
    "DELETE FROM stream_record WHERE topic = :topic AND partition = :partition AND record_offset < :before_offset"
)


def channel_of(topic: str) -> str:
    """The channel that a topic's notifications go to; a topic's own name may be too long for one."""
    return f"stream_{hashlib.sha256(topic.encode()).hexdigest()[:32]}"


class TableStream:
    """Implements stream.interface.Stream on the engine's database. Safe for several threads."""

    def __init__(
        self, engine: Engine, *, membership_check_ms: int = 1_000, fetch_bytes_max: int = 16 * 1024 * 1024
    ) -> None:
        self._engine = engine
        self._membership_check_ms = membership_check_ms
        self._fetch_bytes_max = fetch_bytes_max
        # A topic's number of partitions never changes here, as keys would move to other partitions.
        self._partitions: dict[str, int] = {}

    def create_topics(self, topics: Iterable[TopicDescription]) -> None:
        wanted = list(topics)
        names, partitions = [topic.name for topic in wanted], [topic.partitions for topic in wanted]
        with unavailable("create topics"), self._engine.begin() as connection:
            connection.execute(
                _CREATE_TOPICS,
                {
                    "topics": names,
                    "partitions": partitions,
                    "retentions_ms": [topic.retention_ms for topic in wanted],
                },
            )

    def partitions(self, topic: str) -> int:
        if topic not in self._partitions:
            with unavailable(f"look {topic} up"), self._engine.connect() as connection:
                partitions = connection.execute(_PARTITIONS, {"topic": topic}).scalar_one_or_none()
            if partitions is None:
                raise UnknownTopic(topic)
            self._partitions[topic] = partitions
        return self._partitions[topic]

    def end_offsets(self, topic: str) -> dict[int, int]:
        return {partition: end for partition, (_start, end) in self._offsets(topic).items()}

    def start_offsets(self, topic: str) -> dict[int, int]:
        return {partition: start for partition, (start, _end) in self._offsets(topic).items()}

    def producer(self) -> "TableProducer":
        return TableProducer(self, self._engine)

    def consumer(
        self, group: str, topic: str, instance: int, on_assign: OnAssign, on_revoke: OnRevoke
    ) -> TableConsumer:
        return TableConsumer(
            self._engine,
            partitions=lambda: self.partitions(topic),
            channel=channel_of(topic),
            group=group,
            topic=topic,
            instance=instance,
            on_assign=on_assign,
            on_revoke=on_revoke,
            membership_check_ms=self._membership_check_ms,
            fetch_bytes_max=self._fetch_bytes_max,
        )

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        start = self._partition_offsets(topic, partition)[0]
        if offset < start:
            raise OffsetOutOfRange(f"{topic}/{partition} begins at {start}, after {offset}")
        where = {"topic": topic, "partition": partition, "offset": offset, "records_max": records_max}
        with unavailable(f"read {topic}/{partition}"), self._engine.connect() as connection:
            rows = connection.execute(_READ, where).all()
        return [record_of(Partition(topic, partition), *row[1:]) for row in rows]

    def offset_from(self, topic: str, partition: int, timestamp_ms: int) -> int:
        # There is no index on the time, and none is needed: it grows with the offset.
        low, high = self._partition_offsets(topic, partition)
        while low < high:
            middle = (low + high) // 2
            [record] = self.read(topic, partition, middle, 1)
            low, high = (low, middle) if record.timestamp_ms >= timestamp_ms else (middle + 1, high)
        return low

    def trim(self, topic: str, partition: int, before_offset: int) -> None:
        end = self._partition_offsets(topic, partition)[1]
        if before_offset > end:
            raise OffsetOutOfRange(f"{topic}/{partition} ends at {end}, before {before_offset}")
        where: dict[str, Any] = {"topic": topic, "partition": partition}
        with unavailable(f"trim {topic}/{partition}"):
            # A transaction of its own: deleting under the partition's lock would keep everyone from appending. What a
            # crash leaves behind goes with the next trim.
            with self._engine.begin() as connection:
                connection.execute(_MOVE_START, where | {"before_offset": before_offset})
            with self._engine.connect() as connection:
                oldest = connection.execute(_OLDEST, where).scalar_one()
            while oldest is not None and oldest < before_offset:
                oldest = min(oldest + _TRIM_RECORDS_MAX, before_offset)
                with self._engine.begin() as connection:
                    connection.execute(_DELETE, where | {"before_offset": oldest})

    def trim_read(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        for partition, next_offset in next_offsets.items():
            where = {
                "topic": topic,
                "partition": partition,
                "next_offset": next_offset,
                "records_max": _TRIM_RECORDS_MAX,
            }
            with unavailable(f"trim {topic}/{partition}"), self._engine.connect() as connection:
                retained_from = connection.execute(_RETAINED_FROM, where).scalar_one()
            if retained_from is not None:
                self.trim(topic, partition, retained_from)

    def close(self) -> None:
        """Nothing is shared; the engine is its maker's."""

    def _offsets(self, topic: str) -> dict[int, tuple[int, int]]:
        with unavailable(f"look {topic} up"), self._engine.connect() as connection:
            rows = connection.execute(_OFFSETS, {"topic": topic}).all()
        if not rows:
            raise UnknownTopic(topic)
        return {partition: (start, end) for partition, start, end in rows}

    def _partition_offsets(self, topic: str, partition: int) -> tuple[int, int]:
        offsets = self._offsets(topic).get(partition)
        if offsets is None:
            raise UnknownTopic(f"{topic} has no partition {partition}")
        return offsets


class TableProducer:
    """Implements stream.interface.Producer. Not safe for two threads; connects again after StreamUnavailable."""

    def __init__(self, stream: TableStream, engine: Engine) -> None:
        self._stream = stream
        self._engine = engine
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
            place = record.topic, partition_of(record.key, self._stream.partitions(record.topic))
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
