"""Topics that are described, changed and extended while they are read and written, on the table stream and on Kafka."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from stream.interface import NewRecord, Partition, Stream, TopicDescription, UnknownTopic, partition_of
from stream.kafka import KafkaStream
from stream.limits import KAFKA_BATCH_BYTES_MAX, KAFKA_MAX_MESSAGE_BYTES, RECORD_BYTES_MAX
from stream.opening import open_stream
from tests.stream.reader import Readers, turn_until
from tests.stream.workload import ACKS_WAIT_MS, HOUR_MS, TOPIC, append, key_of, make_topic, numbered

# What the batch format adds to the records of a batch, and to a record beside its key, value and headers, in bytes.
_BATCH_OVERHEAD = 61
_RECORD_OVERHEAD = 10_000


@pytest.fixture
def quick(stream_url: str, engine: Engine) -> Iterator[Stream]:
    """A stream that counts partitions anew all the time."""
    stream = open_stream(stream_url, engine, partitions_kept_ms=200)
    yield stream
    stream.close()


@pytest.fixture
def unaware(stream_url: str, engine: Engine) -> Iterator[Stream]:
    """A stream that counts partitions once, however long a test takes."""
    stream = open_stream(stream_url, engine, partitions_kept_ms=HOUR_MS)
    yield stream
    stream.close()


def test_a_topic_is_described_as_it_was_made(stream: Stream) -> None:
    wanted = TopicDescription(
        TOPIC, 3, HOUR_MS, 1, 1, 1_100_000, unclean_leader_election=False, cleanup_policy="delete"
    )
    stream.create_topics([wanted])
    expected = wanted if isinstance(stream, KafkaStream) else TopicDescription(TOPIC, 3, HOUR_MS)
    assert stream.topics() == {TOPIC: expected}


def test_changing_a_topic_sets_what_is_named_and_takes_nothing_away(stream: Stream) -> None:
    make_topic(stream, 3)
    append(stream, numbered(9, 90))
    ends = stream.end_offsets(TOPIC)
    before = stream.topics()[TOPIC]
    stream.change_topic(TopicDescription(TOPIC, 2, 2 * HOUR_MS))
    assert stream.topics() == {TOPIC: replace(before, retention_ms=2 * HOUR_MS)}
    stream.change_topic(TopicDescription(TOPIC, 5, 2 * HOUR_MS))
    assert stream.topics() == {TOPIC: replace(before, partitions=5, retention_ms=2 * HOUR_MS)}
    assert stream.partitions(TOPIC) == 5
    assert stream.end_offsets(TOPIC) == ends | {3: 0, 4: 0}
    with pytest.raises(UnknownTopic):
        stream.change_topic(TopicDescription("unknown", 3, HOUR_MS))
    assert "unknown" not in stream.topics()


def test_partitions_are_added_under_readers_and_writers_and_nothing_is_lost(
    unaware: Stream, quick: Stream, readers: Readers
) -> None:
    """BULK-134: one writer counts the new partitions at once, another one never does; neither starts again."""
    make_topic(quick, 2)
    progress: dict[int, int] = {}
    members = [readers.of(quick, TOPIC, number, progress) for number in range(2)]
    read = members[0].records, members[1].records
    with closing(quick.producer()) as new, closing(unaware.producer()) as old:
        for producer in (new, old):
            producer.produce(numbered(16, 100))
            producer.wait_for_acks(ACKS_WAIT_MS)
        turn_until(members, lambda: sum(map(len, read)) == 200)

        quick.change_topic(TopicDescription(TOPIC, 6, HOUR_MS))
        for first in range(100, 300, 50):
            for producer in (new, old):
                producer.produce(numbered(16, 50, first=first))
                producer.wait_for_acks(ACKS_WAIT_MS)
        turn_until(members, lambda: sum(map(len, read)) == 600)
    assert {number for member in members for number in member.owned()} == set(range(6))
    ends = quick.end_offsets(TOPIC)
    assert progress == {number: end for number, end in ends.items() if end}
    assert sum(ends[number] for number in range(2, 6)) == sum(
        partition_of(record.key, 6) >= 2 for record in numbered(16, 200, first=100)
    )
    assert sorted(int(record.value) for records in read for record in records) == sorted([*range(300), *range(300)])


@pytest.mark.kafka
def test_a_producer_whose_client_has_not_heard_of_new_partitions_asks(kafka_url: str, engine: Engine) -> None:
    stream = open_stream(kafka_url, engine)
    make_topic(stream, 2)
    with closing(stream.producer()) as producer:
        producer.produce(numbered(16, 16))
        producer.wait_for_acks(ACKS_WAIT_MS)
        # This process counts them at once; the client would look again after five seconds.
        stream.change_topic(TopicDescription(TOPIC, 8, HOUR_MS))
        producer.produce(numbered(16, 100))
        producer.wait_for_acks(ACKS_WAIT_MS)
    ends = stream.end_offsets(TOPIC)
    assert sum(ends.values()) == 116
    assert sum(ends[number] for number in range(2, 8)) == sum(
        partition_of(one.key, 8) >= 2 for one in numbered(16, 100)
    )
    stream.close()


def test_partitions_that_were_added_while_every_member_was_away_are_read(quick: Stream, readers: Readers) -> None:
    """A static member gets its old partitions back without a rebalance; nobody may be left with that alone."""
    make_topic(quick, 2)
    progress: dict[int, int] = {}

    def members() -> list[set[int]]:
        return [reader.owned() for reader in group]

    group = [readers.of(quick, TOPIC, number, progress) for number in range(2)]
    turn_until(group, lambda: sorted(map(len, members())) == [1, 1])
    for reader in group:
        reader.consumer.close()
    quick.change_topic(TopicDescription(TOPIC, 4, HOUR_MS))
    append(quick, [NewRecord(TOPIC, key_of(number, 4), b"%d" % number) for number in range(4)])
    group = [readers.of(quick, TOPIC, number, progress) for number in range(2)]
    turn_until(group, lambda: set().union(*members()) == {0, 1, 2, 3})
    turn_until(group, lambda: sum(len(reader.records) for reader in group) == 4)


def test_operators_see_who_reads_what_and_what_was_committed(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 3)
    assert stream.owners("handler", TOPIC) == stream.committed_offsets("handler", TOPIC) == {}
    append(stream, [NewRecord(TOPIC, key_of(number % 2, 3), b"%d" % number) for number in range(10)])
    members = {instance: readers.of(stream, TOPIC, instance, {}) for instance in (2, 5)}

    def as_they_say() -> dict[int, int]:
        return {number: instance for instance, reader in members.items() for number in reader.owned()}

    turn_until(
        list(members.values()),
        lambda: (
            len(as_they_say()) == 3 and stream.owners("handler", TOPIC) == as_they_say() and members[5].owned() != set()
        ),
    )
    # The table stream keeps no copy of what stands in handler_progress.
    expected = {0: 5, 1: 5} if isinstance(stream, KafkaStream) else {}

    def is_read_and_committed() -> bool:
        read: dict[Partition, int] = {}
        for reader in members.values():
            owned = reader.consumer.owned()
            theirs = {place: reader.progress[place.number] for place in owned if place.number in reader.progress}
            # Once more: what is committed while the group shares its partitions out is refused, and nobody repeats it.
            reader.consumer.commit(theirs)
            read |= theirs
        is_read = read == {Partition(TOPIC, 0): 5, Partition(TOPIC, 1): 5}
        return is_read and stream.committed_offsets("handler", TOPIC) == expected

    turn_until(list(members.values()), is_read_and_committed)
    for reader in members.values():
        reader.consumer.close()
    assert stream.committed_offsets("handler", TOPIC) == expected
    assert stream.owners("stranger", TOPIC) == {}


def test_the_times_of_the_oldest_unread_records_are_found_across_topics(stream: Stream) -> None:
    make_topic(stream, 3)
    make_topic(stream, 1, "beside")
    large = bytes(200_000)
    append(stream, [NewRecord(TOPIC, key_of(number, 3), large) for number in (0, 1, 0, 1, 0, 1)])
    append(stream, [NewRecord("beside", b"key", b"value")] * 3)
    stream.trim(TOPIC, 1, 2)
    places = {(TOPIC, 0): 1, (TOPIC, 1): 0, (TOPIC, 2): 0, ("beside", 0): 2}
    times = stream.times_ms({Partition(*place): offset for place, offset in places.items()}, 10_000)
    assert times == {
        Partition(TOPIC, 0): stream.read(TOPIC, 0, 1, 1)[0].timestamp_ms,
        # What it would read next was trimmed: the oldest that is there counts.
        Partition(TOPIC, 1): stream.read(TOPIC, 1, 2, 1)[0].timestamp_ms,
        Partition("beside", 0): stream.read("beside", 0, 2, 1)[0].timestamp_ms,
    }
    assert stream.times_ms({}, 10_000) == {}


def test_the_largest_record_fits_the_clients_batch_and_that_fits_the_topic() -> None:
    assert RECORD_BYTES_MAX + _RECORD_OVERHEAD < KAFKA_BATCH_BYTES_MAX
    assert KAFKA_BATCH_BYTES_MAX + _BATCH_OVERHEAD < KAFKA_MAX_MESSAGE_BYTES
