"""A stream in three tables of PostgreSQL: topics for one machine, durable, with nothing to install.

Appending is `table_producer`. Reading, and who owns which partition, is `table_consumer`.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Engine, text

from stream.interface import (
    OffsetOutOfRange,
    OnAssign,
    OnRevoke,
    Partition,
    Record,
    TopicDescription,
    UnknownTopic,
)
from stream.session import read_owners, unavailable
from stream.table_consumer import TableConsumer, record_of
from stream.table_producer import TableProducer, channel_of

# A deletion of more than this is split, so that it neither runs for minutes nor fills the WAL at once.
_TRIM_RECORDS_MAX = 10_000

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

_TOPICS = text("SELECT topic, partitions, retention_ms FROM stream_topic ORDER BY topic")

_CHANGE_TOPIC = text(
    """
    UPDATE stream_topic SET partitions = greatest(partitions, :partitions), retention_ms = :retention_ms
    WHERE topic = :topic RETURNING topic
    """
)

_ADD_PARTITIONS = text(
    """
    INSERT INTO stream_partition (topic, partition) SELECT :topic, generate_series(0, :partitions - 1)
    ON CONFLICT DO NOTHING
    """
)

_PARTITIONS = text("SELECT partitions FROM stream_topic WHERE topic = :topic")

_LOG_ID = text("SELECT CAST(log_id AS text) FROM stream_topic WHERE topic = :topic")

_OFFSETS = text("SELECT partition, start_offset, end_offset FROM stream_partition WHERE topic = :topic")

_READ = text(
    """
    SELECT partition, record_offset, key, value, headers, CAST(extract(epoch FROM appended_date) * 1000 AS int8)
    FROM stream_record
    WHERE topic = :topic AND partition = :partition AND record_offset >= :offset
    ORDER BY record_offset LIMIT :records_max
    """
)

_TIMEOUT = text("SELECT set_config('statement_timeout', :timeout_ms, true)")

_TIMES = text(
    """
    SELECT wanted.topic, wanted.partition, found.timestamp_ms
    FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int4[]), CAST(:offsets AS int8[]))
        AS wanted(topic, partition, first_offset)
    CROSS JOIN LATERAL (
        SELECT CAST(extract(epoch FROM appended_date) * 1000 AS int8) AS timestamp_ms FROM stream_record
        WHERE topic = wanted.topic AND partition = wanted.partition AND record_offset >= wanted.first_offset
        ORDER BY record_offset LIMIT 1
    ) AS found
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


class TableStream:
    """Implements stream.interface.Stream on the engine's database. Safe for several threads."""

    def __init__(
        self,
        engine: Engine,
        *,
        membership_check_ms: int = 1_000,
        fetch_bytes_max: int = 16 * 1024 * 1024,
        partitions_kept_ms: int = 60_000,
    ) -> None:
        self._engine = engine
        self._membership_check_ms = membership_check_ms
        self._fetch_bytes_max = fetch_bytes_max
        self._partitions_kept_s = partitions_kept_ms / 1000
        # Topic -> its number of partitions and when that was read.
        self._partitions: dict[str, tuple[int, float]] = {}

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

    def topics(self) -> dict[str, TopicDescription]:
        with unavailable("list topics"), self._engine.connect() as connection:
            rows = connection.execute(_TOPICS).all()
        return {row.topic: TopicDescription(row.topic, row.partitions, row.retention_ms) for row in rows}

    def change_topic(self, wanted: TopicDescription) -> None:
        parameters = {"topic": wanted.name, "partitions": wanted.partitions, "retention_ms": wanted.retention_ms}
        with unavailable(f"change {wanted.name}"), self._engine.begin() as connection:
            if connection.execute(_CHANGE_TOPIC, parameters).scalar_one_or_none() is None:
                raise UnknownTopic(wanted.name)
            connection.execute(_ADD_PARTITIONS, parameters)
        self._partitions.pop(wanted.name, None)

    def partitions(self, topic: str) -> int:
        known = self._partitions.get(topic)
        if known is not None and time.monotonic() - known[1] < self._partitions_kept_s:
            return known[0]
        with unavailable(f"look {topic} up"), self._engine.connect() as connection:
            partitions: int | None = connection.execute(_PARTITIONS, {"topic": topic}).scalar_one_or_none()
        if partitions is None:
            raise UnknownTopic(topic)
        self._partitions[topic] = (partitions, time.monotonic())
        return partitions

    def log_id(self, topic: str) -> str:
        with unavailable(f"look {topic} up"), self._engine.connect() as connection:
            log_id: str | None = connection.execute(_LOG_ID, {"topic": topic}).scalar_one_or_none()
        if log_id is None:
            raise UnknownTopic(topic)
        return log_id

    def end_offsets(self, topic: str) -> dict[int, int]:
        return {partition: end for partition, (_start, end) in self._offsets(topic).items()}

    def start_offsets(self, topic: str) -> dict[int, int]:
        return {partition: start for partition, (start, _end) in self._offsets(topic).items()}

    def producer(self) -> TableProducer:
        return TableProducer(self._engine, self.partitions)

    def consumer(
        self, group: str, topic: str, instance: int, on_assign: OnAssign, on_revoke: OnRevoke
    ) -> TableConsumer:
        return TableConsumer(
            self._engine,
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

    def committed_offsets(self, group: str, topic: str) -> dict[int, int]:
        """None are kept: handler_progress, in the same database, says the same and is the truth."""
        return {}

    def owners(self, group: str, topic: str) -> dict[int, int]:
        return read_owners(self._engine, group, topic)

    def times_ms(self, offsets: Mapping[Partition, int], timeout_ms: int) -> dict[Partition, int]:
        parameters = {
            "topics": [place.topic for place in offsets],
            "partitions": [place.number for place in offsets],
            "offsets": list(offsets.values()),
            "timeout_ms": str(timeout_ms),
        }
        with unavailable("look at unread records"), self._engine.connect() as connection:
            connection.execute(_TIMEOUT, parameters)
            rows = connection.execute(_TIMES, parameters).all()
        return {Partition(topic, partition): timestamp_ms for topic, partition, timestamp_ms in rows}

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
