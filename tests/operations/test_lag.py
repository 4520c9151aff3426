"""`lag` says per partition and handler what is unread, for how long, who reads it, and what was committed."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from operations.lag import PartitionLag, read_lag, totals
from operations.printing import duration
from operations.settings import read_settings
from operations.topics import wanted_topics
from stream.interface import NewRecord, Partition, Stream
from stream.kafka import KafkaStream
from tests.stream.reader import Readers, turn_until
from tests.stream.workload import append, key_of

POSITION = "topic-transfer-position"


@pytest.fixture
def readers() -> Iterator[Readers]:
    readers = Readers()
    yield readers
    readers.close()


def progress(engine: Engine, partition: int, next_offset: int) -> None:
    with engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO handler_progress (handler, topic, partition, next_offset)"
                " VALUES ('position', :topic, :partition, :next_offset)"
            ),
            {"topic": POSITION, "partition": partition, "next_offset": next_offset},
        )


def test_lag_tells_what_is_unread_since_when_and_who_reads(
    stream: Stream, engine: Engine, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An age is left out where the broker takes longer; here it is waited for.
    monkeypatch.setattr("operations.lag.OLDEST_WAIT_MS", 60_000)
    stream.create_topics(wanted_topics(read_settings(topic_partitions="3")))
    before_ms = time.time_ns() // 1_000_000
    append(
        stream, [NewRecord(POSITION, key_of(0, 3), b"value")] * 5 + [NewRecord(POSITION, key_of(1, 3), b"value")] * 4
    )
    progress(engine, 0, 2)
    progress(engine, 1, 4)
    reader = readers.of(stream, POSITION, 7, {}, group="position")
    turn_until([reader], lambda: len(reader.records) == 9 and set(stream.owners("position", POSITION)) == {0, 1, 2})
    reader.consumer.commit({Partition(POSITION, 0): 1})
    is_kafka = isinstance(stream, KafkaStream)
    turn_until([reader], lambda: not is_kafka or stream.committed_offsets("position", POSITION) == {0: 1, 1: 4})

    with engine.connect() as tx:
        rows = read_lag(tx, stream)
        without_details = read_lag(tx, stream, ages=False, members=False)
    assert len(rows) == 13 * 3
    first, second, third = [row for row in rows if row.topic == POSITION]
    assert first.oldest_unread_age_ms is not None
    assert 0 <= first.oldest_unread_age_ms <= time.time_ns() // 1_000_000 - before_ms
    age_ms = first.oldest_unread_age_ms
    committed = (1, 4) if is_kafka else (None, None)
    assert first == PartitionLag("position", POSITION, 0, 5, 2, 3, committed[0], age_ms, 7)
    assert second == PartitionLag("position", POSITION, 1, 4, 4, 0, committed[1], None, 7)
    assert third == PartitionLag("position", POSITION, 2, 0, 0, 0, None, None, 7)
    assert PartitionLag("position", POSITION, 0, 5, 2, 3) in without_details
    [total] = [one for one in totals(rows) if one.handler == "position"]
    assert (total.partitions, total.owned, total.lag, total.oldest_unread_age_ms) == (3, 3, 3, age_ms)
    [idle] = [one for one in totals(rows) if one.handler == "bulk-prepare"]
    assert (idle.partitions, idle.owned, idle.lag, idle.oldest_unread_age_ms) == (3, 0, 0, None)


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(None, "-"), (0, "0.0 s"), (119_999, "120.0 s"), (120_000, "2 min"), (7_200_000, "2 h"), (3 * 86_400_000, "3 d")],
)
def test_an_age_is_told_in_the_largest_unit_that_says_it(milliseconds: int | None, shown: str) -> None:
    assert duration(milliseconds) == shown
