"""What every stream promises, checked on the table stream and on a real Kafka broker alike."""

import os
import signal
import threading
import time
from collections import defaultdict
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine

from stream.interface import (
    NewRecord,
    OffsetOutOfRange,
    Stream,
    StreamUnavailable,
    TopicDescription,
    UnknownTopic,
    partition_of,
)
from stream.limits import RECORD_BYTES_MAX, RecordTooLarge
from tests.flows.live_switch import delete_topics
from tests.stream.reader import Readers, turn_until
from tests.stream.workload import ACKS_WAIT_MS, HOUR_MS, TOPIC, append, key_of, make_topic, member_process, numbered


class BrokenProgress(dict[int, int]):
    """Progress that cannot be read."""

    def get(self, *_key: object) -> Any:
        return 1 // 0


def test_records_of_one_key_are_read_in_the_order_in_which_they_were_appended(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 4)
    headers = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("empty", b""))
    began_ms = time.time_ns() // 1_000_000
    with closing(stream.producer()) as producer:
        producer.produce(numbered(7, 150))
        producer.produce(numbered(7, 150, first=150))
        producer.produce([NewRecord(TOPIC, b"key-0", b"\x00\xff", headers)])
        producer.produce([])
        producer.wait_for_acks(ACKS_WAIT_MS)
    assert sum(stream.end_offsets(TOPIC).values()) == 301

    reader = readers.of(stream, TOPIC)
    turn_until([reader], lambda: len(reader.records) == 301)
    reader.consumer.close()

    by_key: dict[bytes, list[bytes]] = defaultdict(list)
    for record in reader.records:
        assert record.partition.number == partition_of(record.key, 4)
        assert began_ms - 1 <= record.timestamp_ms <= time.time_ns() // 1_000_000
        by_key[record.key].append(record.value)
    [with_headers] = [record for record in reader.records if record.headers]
    assert with_headers.headers == headers
    assert by_key[b"key-0"].pop() == b"\x00\xff"
    assert by_key == {b"key-%d" % key: [b"%d" % n for n in range(key, 300, 7)] for key in range(7)}
    # An offset is the next to read: what was read last stands one before the end.
    assert reader.progress == {number: end for number, end in stream.end_offsets(TOPIC).items() if end}


def test_making_topics_twice_changes_nothing(stream: Stream) -> None:
    make_topic(stream, 3)
    append(stream, numbered(1, 5))
    stream.create_topics([TopicDescription(TOPIC, 3, HOUR_MS), TopicDescription("another", 1, HOUR_MS)])
    assert stream.partitions(TOPIC) == 3
    assert sum(stream.end_offsets(TOPIC).values()) == 5
    assert stream.end_offsets("another") == stream.start_offsets("another") == {0: 0}


def test_reading_starts_at_the_offset_that_the_handler_names(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 1)
    append(stream, numbered(1, 10))
    reader = readers.of(stream, TOPIC, progress={0: 7})
    turn_until([reader], lambda: len(reader.records) == 3)
    assert [record.value for record in reader.records] == [b"7", b"8", b"9"]
    # What was committed for lag tools says 10; the handler's own word counts.
    reader.consumer.close()
    assert reader.revoked == [([0], False)]

    again = readers.of(stream, TOPIC, progress={0: 10})
    turn_until([again], lambda: again.owned() == {0})
    append(stream, numbered(1, 1, first=10))
    turn_until([again], lambda: bool(again.records))
    assert [record.value for record in again.records] == [b"10"]
    again.consumer.close()


def test_a_batch_is_never_larger_than_asked_for(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 2)
    append(stream, numbered(5, 40))
    reader = readers.of(stream, TOPIC)
    sizes = []
    while len(reader.records) < 40:
        sizes.append(len(reader.turn(records_max=3)))
    assert max(sizes) <= 3
    assert reader.turn() == []
    reader.consumer.close()


@pytest.mark.parametrize("offset", [4, 11])
def test_an_offset_outside_the_log_is_an_error_and_nothing_is_skipped(
    stream: Stream, offset: int, readers: Readers
) -> None:  # D17
    make_topic(stream, 1)
    append(stream, numbered(1, 10))
    stream.trim(TOPIC, 0, 5)
    reader = readers.of(stream, TOPIC, progress={0: offset})
    with pytest.raises(OffsetOutOfRange):
        turn_until([reader], lambda: bool(reader.records))
    assert reader.records == []
    reader.consumer.close()
    with pytest.raises(OffsetOutOfRange):
        stream.trim(TOPIC, 0, 11)


def test_a_trimmed_log_begins_where_it_was_cut(stream: Stream) -> None:
    make_topic(stream, 2)
    append(stream, [NewRecord(TOPIC, key_of(1, 2), b"%d" % n) for n in range(10)])
    stream.trim(TOPIC, 1, 5)
    stream.trim(TOPIC, 1, 3)
    assert stream.start_offsets(TOPIC) == {0: 0, 1: 5}
    assert stream.end_offsets(TOPIC) == {0: 0, 1: 10}
    with pytest.raises(OffsetOutOfRange):
        stream.read(TOPIC, 1, 4, 10)
    assert [record.value for record in stream.read(TOPIC, 1, 5, 3)] == [b"5", b"6", b"7"]
    assert [record.offset for record in stream.read(TOPIC, 1, 8, 100)] == [8, 9]
    assert stream.read(TOPIC, 1, 10, 100) == []
    stream.trim(TOPIC, 1, 10)
    append(stream, [NewRecord(TOPIC, key_of(1, 2), b"after")])
    [after] = stream.read(TOPIC, 1, 10, 100)
    assert (after.offset, after.value) == (10, b"after")


def test_records_are_found_by_their_time(stream: Stream) -> None:
    make_topic(stream, 1)
    times = []
    with closing(stream.producer()) as producer:
        for number in range(5):
            producer.produce([NewRecord(TOPIC, b"k", b"%d" % number)])
            producer.wait_for_acks(ACKS_WAIT_MS)
            [record] = stream.read(TOPIC, 0, number, 1)
            times.append(record.timestamp_ms)
            while time.time_ns() // 1_000_000 <= times[-1]:
                pass
    assert [stream.offset_from(TOPIC, 0, timestamp) for timestamp in times] == [0, 1, 2, 3, 4]
    assert [stream.offset_from(TOPIC, 0, timestamp + 1) for timestamp in times] == [1, 2, 3, 4, 5]
    assert stream.offset_from(TOPIC, 0, 0) == 0
    stream.trim(TOPIC, 0, 2)
    assert stream.offset_from(TOPIC, 0, 0) == 2


def test_a_topic_that_was_not_made_is_refused_everywhere(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 1)
    reader = readers.of(stream, "unknown")
    with closing(stream.producer()) as producer:
        for refused in (
            lambda: stream.partitions("unknown"),
            lambda: stream.end_offsets("unknown"),
            lambda: stream.start_offsets("unknown"),
            lambda: stream.read("unknown", 0, 0, 1),
            lambda: stream.trim("unknown", 0, 0),
            lambda: stream.read(TOPIC, 1, 0, 1),
            lambda: stream.trim(TOPIC, 1, 0),
            lambda: producer.produce([NewRecord("unknown", b"key", b"value")]),
            lambda: reader.consumer.consume(1, 0),
        ):
            with pytest.raises(UnknownTopic):
                refused()
    reader.consumer.close()
    with pytest.raises(UnknownTopic):
        stream.partitions("unknown")


def test_a_large_record_passes_and_a_larger_one_is_refused(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 1)
    value = os.urandom(900_000)
    append(stream, [NewRecord(TOPIC, b"key", value), NewRecord(TOPIC, b"", b""), NewRecord(TOPIC, b"key", value)])
    with closing(stream.producer()) as producer, pytest.raises(RecordTooLarge):
        producer.produce([NewRecord(TOPIC, b"key", bytes(RECORD_BYTES_MAX))])
    reader = readers.of(stream, TOPIC)
    turn_until([reader], lambda: len(reader.records) == 3)
    assert [record.value for record in reader.records] == [value, b"", value]
    reader.consumer.close()


def test_no_record_is_skipped_while_several_append_at_once(stream: Stream, readers: Readers) -> None:  # D2
    make_topic(stream, 2)
    make_topic(stream, 1, "beside")
    keys = [key_of(0, 2), key_of(1, 2)]

    def keep_appending(writer: int) -> None:
        # Half of the writers go through topics and partitions in the opposite order; nobody may wait for ever.
        places = [(TOPIC, keys[0]), ("beside", b"key"), (TOPIC, keys[1])][:: 1 if writer % 2 else -1]
        with closing(stream.producer()) as producer:
            for turn in range(40):
                producer.produce([NewRecord(topic, key, b"%d %d" % (writer, turn)) for topic, key in places])
                producer.wait_for_acks(ACKS_WAIT_MS)

    writers = [threading.Thread(target=keep_appending, args=(number,)) for number in range(4)]
    reader = readers.of(stream, TOPIC)
    for writer in writers:
        writer.start()
    # The reader's own check (reader.py) is that every record is the one that comes next.
    turn_until([reader], lambda: len(reader.records) == 4 * 40 * 2)
    for writer in writers:
        writer.join()
    reader.consumer.close()

    assert stream.end_offsets(TOPIC) == {0: 160, 1: 160}
    assert stream.end_offsets("beside") == {0: 160}
    turns: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for record in reader.records:
        writer_number, turn_number = record.value.split()
        turns[record.key, writer_number].append(int(turn_number))
    assert len(turns) == 8
    assert all(seen == list(range(40)) for seen in turns.values())


def test_members_share_the_partitions_and_take_over_from_one_that_leaves(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 5)
    append(stream, numbered(20, 100))
    progress: dict[int, int] = {}
    members = [readers.of(stream, TOPIC, number, progress) for number in range(2)]
    first, second = members
    turn_until(
        members,
        lambda: len(first.owned()) + len(second.owned()) == 5 and min(len(first.owned()), len(second.owned())) == 2,
    )
    append(stream, numbered(20, 100, first=100))
    turn_until(members, lambda: len(first.records) + len(second.records) == 200)

    second.consumer.close()
    assert second.owned() == set()
    assert all(lost is False for _numbers, lost in second.revoked)
    turn_until([first], lambda: first.owned() == {0, 1, 2, 3, 4})
    append(stream, numbered(20, 100, first=200))
    turn_until([first], lambda: len(first.records) + len(second.records) == 300)
    first.consumer.close()
    assert sorted(int(record.value) for reader in members for record in reader.records) == list(range(300))


def test_what_on_assign_raises_comes_out_of_consume_and_ends_the_reader(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 2)
    append(stream, numbered(4, 20))
    reader = readers.of(stream, TOPIC)
    reader.progress = BrokenProgress()
    with pytest.raises(ZeroDivisionError):
        turn_until([reader], lambda: bool(reader.records))
    with pytest.raises(StreamUnavailable):
        reader.turn()
    reader.consumer.close()
    # What was never won is not revoked, and the next one reads all of it.
    assert reader.revoked == []
    successor = readers.of(stream, TOPIC)
    turn_until([successor], lambda: len(successor.records) == 20)


def test_groups_do_not_disturb_each_other(stream: Stream, readers: Readers) -> None:
    make_topic(stream, 2)
    append(stream, numbered(4, 20))
    one, other = readers.of(stream, TOPIC, group="one"), readers.of(stream, TOPIC, group="other")
    turn_until([one], lambda: len(one.records) == 20)
    turn_until([other], lambda: len(other.records) == 20)
    assert one.owned() == other.owned() == {0, 1}
    one.consumer.close()
    other.consumer.close()


@pytest.mark.process
def test_the_partitions_of_a_killed_process_are_taken_over(
    stream: Stream, stream_url: str, database_url: str, readers: Readers
) -> None:
    make_topic(stream, 4)  # D10
    reader = readers.of(stream, TOPIC)
    turn_until([reader], lambda: reader.owned() == {0, 1, 2, 3})
    with member_process(stream_url, database_url) as process:
        turn_until([reader], lambda: len(reader.owned()) == 2)
        assert process.stdout is not None
        theirs = {int(number) for number in process.stdout.readline().split(",")}
        assert theirs | reader.owned() == {0, 1, 2, 3}
        assert theirs & reader.owned() == set()
        process.send_signal(signal.SIGKILL)
        process.wait()
    append(stream, numbered(20, 100))
    turn_until([reader], lambda: len(reader.records) == 100)
    assert reader.owned() == {0, 1, 2, 3}
    reader.consumer.close()


def test_a_topic_that_is_deleted_and_made_again_is_another_log(stream: Stream, engine: Engine) -> None:
    """An offset belongs to one log: handlers compare its name before they read on from where they were."""
    make_topic(stream, 1)
    make_topic(stream, 1, "topic-transfer-get")
    append(stream, numbered(1, 5))
    log_id = stream.log_id(TOPIC)
    assert log_id not in ("", stream.log_id("topic-transfer-get"))
    append(stream, numbered(1, 5))
    make_topic(stream, 1)
    assert stream.log_id(TOPIC) == log_id
    delete_topics(engine, stream, [TOPIC, "topic-transfer-get"])
    with pytest.raises(UnknownTopic):
        stream.log_id(TOPIC)
    make_topic(stream, 1)
    assert stream.log_id(TOPIC) != log_id
    assert stream.end_offsets(TOPIC) == {0: 0}
