"""How far each handler is behind its topic: per partition the log's end, the handler's next offset, the difference.

The truth is `handler_progress`, written in the transaction of the work itself; the offsets that Kafka knows are a copy
for other tools. Dead letters stand beside it: a topic that holds any is for an operator to look at.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from db.tables import handler_progress
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX
from stream.interface import Stream


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """`end_offset` is the offset that the next record will get, `next_offset` the one the handler reads next."""

    handler: str
    topic: str
    partition: int
    end_offset: int
    next_offset: int
    lag: int


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many dead letters a topic has ever been given."""

    topic: str
    records: int


def read_lag(tx: Connection, stream: Stream) -> list[PartitionLag]:
    """A row per partition of every topic that a handler reads, in the order of the catalogue."""
    next_offsets = {
        (handler, topic, partition): next_offset
        for handler, topic, partition, next_offset in tx.execute(
            select(
                handler_progress.c.handler,
                handler_progress.c.topic,
                handler_progress.c.partition,
                handler_progress.c.next_offset,
            )
        )
    }
    rows = []
    for topic in CATALOGUE.values():
        if topic.name.endswith(DEAD_LETTER_SUFFIX):
            continue
        for partition, end_offset in sorted(stream.end_offsets(topic.name).items()):
            # A partition that was never read begins at offset 0.
            next_offset = next_offsets.get((topic.consumer, topic.name, partition), 0)
            rows.append(
                PartitionLag(topic.consumer, topic.name, partition, end_offset, next_offset, end_offset - next_offset)
            )
    return rows


def read_dead_letters(stream: Stream) -> list[DeadLetters]:
    """The dead-letter topics that hold anything."""
    counts = [
        DeadLetters(topic, sum(stream.end_offsets(topic).values()))
        for topic in CATALOGUE
        if topic.endswith(DEAD_LETTER_SUFFIX)
    ]
    return [one for one in counts if one.records]
