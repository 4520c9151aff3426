"""How far each handler is behind its topic: per partition the log's end, the handler's next offset, and what lies between.

The truth is `handler_progress`, written in the transaction of the work itself. Beside it stand, for operators,

    committed   what the handler has told Kafka for other tools: a little behind, and of no effect
    oldest age  for how long the oldest unread message has been waiting, by the clocks of its writer and of this process
    owner       the instance number of the process that reads the partition now

Dead letters stand beside it: a topic that holds any is for an operator to look at.

The progress is asked for first, the ends after it: what a handler reads meanwhile still counts as unread, and a lag of 0 is
one. A next offset beyond the end is no lag either, but a log that began anew.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from db.tables import handler_progress
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX, Topic
from stream.interface import Partition, Stream

# For the oldest unread messages of all partitions together; those that are not found in time have no age.
OLDEST_WAIT_MS = 3_000


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """`end_offset` is the offset that the next record will get, `next_offset` the one the handler reads next.

    `committed_offset` and `owner` are None where there is none, `oldest_unread_age_ms` where nothing is unread, or was not
    found in time; all three are None when they were not asked for.
    """

    handler: str
    topic: str
    partition: int
    end_offset: int
    next_offset: int
    lag: int
    committed_offset: int | None = None
    oldest_unread_age_ms: int | None = None
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class HandlerLag:
    """A handler's partitions together; `owned` is how many of them somebody reads."""

    handler: str
    topic: str
    partitions: int
    owned: int
    lag: int
    oldest_unread_age_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many dead letters a topic has ever been given."""

    topic: str
    records: int


def read_lag(tx: Connection, stream: Stream, *, ages: bool = True, members: bool = True) -> list[PartitionLag]:
    """A row per partition of every topic that a handler reads, in the order of the catalogue.

    `ages` looks at the oldest unread records, `members` asks the groups what they have committed and who owns what. Whoever
    asks again and again leaves `members` out: a question to a group's coordinator that runs out of time can abort the
    process (librdkafka 2.16, rd_kafka_enq_once_del_source_return). Raises StreamUnavailable, UnknownTopic.
    """
    topics = [topic for name, topic in CATALOGUE.items() if not name.endswith(DEAD_LETTER_SUFFIX)]
    next_offsets = _next_offsets(tx)
    ends = {topic.name: stream.end_offsets(topic.name) for topic in topics}
    rows = []
    for topic in topics:
        for partition, end_offset in sorted(ends[topic.name].items()):
            # A partition that was never read begins at offset 0.
            next_offset = next_offsets.get((topic.consumer, topic.name, partition), 0)
            lag = max(0, end_offset - next_offset)
            rows.append(PartitionLag(topic.consumer, topic.name, partition, end_offset, next_offset, lag))
    if members:
        rows = _with_members(stream, topics, rows)
    return _with_ages(stream, rows) if ages else rows


def totals(rows: Iterable[PartitionLag]) -> list[HandlerLag]:
    """A row per handler, in the order of the rows."""
    by_handler: dict[tuple[str, str], list[PartitionLag]] = {}
    for row in rows:
        by_handler.setdefault((row.handler, row.topic), []).append(row)
    return [
        HandlerLag(
            handler,
            topic,
            partitions=len(some),
            owned=sum(row.owner is not None for row in some),
            lag=sum(row.lag for row in some),
            oldest_unread_age_ms=max(
                (row.oldest_unread_age_ms for row in some if row.oldest_unread_age_ms is not None), default=None
            ),
        )
        for (handler, topic), some in by_handler.items()
    ]


def read_dead_letters(stream: Stream) -> list[DeadLetters]:
    """The dead-letter topics that hold anything."""
    counts = [
        DeadLetters(topic, sum(stream.end_offsets(topic).values()))
        for topic in CATALOGUE
        if topic.endswith(DEAD_LETTER_SUFFIX)
    ]
    return [one for one in counts if one.records]


def _next_offsets(tx: Connection) -> Mapping[tuple[str, str, int], int]:
    query = select(
        handler_progress.c.handler,
        handler_progress.c.topic,
        handler_progress.c.partition,
        handler_progress.c.next_offset,
    )
    return {(handler, topic, partition): offset for handler, topic, partition, offset in tx.execute(query)}


def _with_members(stream: Stream, topics: Iterable[Topic], rows: Iterable[PartitionLag]) -> list[PartitionLag]:
    committed = {topic.name: stream.committed_offsets(topic.consumer, topic.name) for topic in topics}
    owners = {topic.name: stream.owners(topic.consumer, topic.name) for topic in topics}
    return [
        replace(
            row,
            committed_offset=committed[row.topic].get(row.partition),
            owner=owners[row.topic].get(row.partition),
        )
        for row in rows
    ]


def _with_ages(stream: Stream, rows: Iterable[PartitionLag]) -> list[PartitionLag]:
    unread = {Partition(row.topic, row.partition): row.next_offset for row in rows if row.lag}
    times_ms = stream.times_ms(unread, OLDEST_WAIT_MS)
    now_ms = time.time_ns() // 1_000_000
    return [
        replace(row, oldest_unread_age_ms=_age_ms(times_ms.get(Partition(row.topic, row.partition)), now_ms))
        for row in rows
    ]


def _age_ms(timestamp_ms: int | None, now_ms: int) -> int | None:
    # The writer's clock may be ahead of ours.
    return None if timestamp_ms is None else max(0, now_ms - timestamp_ms)
