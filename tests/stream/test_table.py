"""What the table stream does in its own way: one transaction per append, ownership by sessions, waiting without polling."""

import threading
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from db.engine import make_engine
from stream.interface import NewRecord, OffsetOutOfRange, StreamUnavailable, TopicDescription
from stream.session import lock_class
from stream.table import TableStream
from tests.stream.reader import Readers, turn_until
from tests.stream.workload import HOUR_MS, TOPIC, append, key_of, make_topic, numbered

# So rare that no test waits for it: what happens, happens because somebody was told.
NEVER_MS = 600_000


def end_sessions(engine: Engine, application: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = :application AND datname = current_database() AND pid <> pg_backend_pid()"
            ),
            {"application": application},
        )


def test_an_append_is_one_transaction_whatever_its_size(engine: Engine) -> None:
    stream = TableStream(engine)
    make_topic(stream, 6)
    stream.create_topics([TopicDescription("beside", 2, HOUR_MS)])
    records = numbered(50, 1_000)
    append(stream, records + [NewRecord("beside", b"%d" % n, b"") for n in range(10)])
    with engine.connect() as connection:
        # xmin is the transaction that wrote the row.
        rows, transactions = connection.execute(
            text("SELECT count(*), count(DISTINCT CAST(xmin AS text)) FROM stream_record")
        ).one()
    assert (rows, transactions) == (1_010, 1)


def test_a_reader_that_waits_is_told_of_an_append(engine: Engine, readers: Readers) -> None:
    stream = TableStream(engine, membership_check_ms=NEVER_MS)
    make_topic(stream, 3)
    reader = readers.of(stream, TOPIC)
    assert reader.turn() == []
    # From here on it looks again only when it is told to.
    waiting = threading.Thread(target=reader.turn, kwargs={"timeout_ms": 60_000})
    waiting.start()
    append(stream, numbered(1, 1))
    waiting.join(timeout=30)
    assert not waiting.is_alive()
    assert [record.value for record in reader.records] == [b"0"]
    reader.consumer.close()


def test_members_tell_each_other_when_the_group_changes(engine: Engine, readers: Readers) -> None:
    stream = TableStream(engine, membership_check_ms=NEVER_MS)
    make_topic(stream, 4)
    members = [readers.of(stream, TOPIC, number) for number in range(3)]
    first, second, third = members
    turn_until([first], lambda: first.owned() == {0, 1, 2, 3})
    # The shares follow from the rank: partition p belongs to rank p % members.
    turn_until(members, lambda: [one.owned() for one in members] == [{0, 3}, {1}, {2}])
    second.consumer.close()
    turn_until([first, third], lambda: [first.owned(), third.owned()] == [{0, 2}, {1, 3}])
    first.consumer.close()
    third.consumer.close()


def test_an_instance_that_is_held_by_another_session_owns_nothing_until_it_is_free(
    engine: Engine, readers: Readers
) -> None:
    stream = TableStream(engine, membership_check_ms=10)
    make_topic(stream, 2)
    holder, waiter = readers.of(stream, TOPIC, 0), readers.of(stream, TOPIC, 0)
    turn_until([holder], lambda: holder.owned() == {0, 1})
    for _turn in range(5):
        waiter.turn()
    assert waiter.owned() == set()
    holder.consumer.close()
    turn_until([waiter], lambda: waiter.owned() == {0, 1})
    waiter.consumer.close()


def test_a_lost_session_loses_its_partitions_and_says_so(engine: Engine, readers: Readers) -> None:  # D10
    stream = TableStream(engine)
    make_topic(stream, 2)
    reader = readers.of(stream, TOPIC)
    producer = stream.producer()
    turn_until([reader], lambda: reader.owned() == {0, 1})
    producer.produce(numbered(1, 1))
    end_sessions(engine, "tests")

    with pytest.raises(StreamUnavailable):
        turn_until([reader], lambda: False)
    assert reader.revoked == [([0, 1], True)]
    assert reader.owned() == set()
    with pytest.raises(StreamUnavailable):
        reader.turn()
    reader.consumer.close()
    assert len(reader.revoked) == 1

    with pytest.raises(StreamUnavailable):
        producer.produce(numbered(1, 1))
    # A producer connects again by itself.
    producer.produce(numbered(1, 1))
    producer.close()
    successor = readers.of(stream, TOPIC, progress=reader.progress)
    turn_until([successor], lambda: len(reader.records + successor.records) == 2)
    successor.consumer.close()


def test_a_busy_partition_does_not_starve_the_others(engine: Engine, readers: Readers) -> None:
    stream = TableStream(engine)
    make_topic(stream, 3)
    append(stream, [NewRecord(TOPIC, key_of(0, 3), b"") for _ in range(100)] + [NewRecord(TOPIC, key_of(2, 3), b"x")])
    reader = readers.of(stream, TOPIC)
    for _turn in range(2):
        reader.turn(records_max=10)
    assert {record.partition.number for record in reader.records} == {0, 2}
    reader.consumer.close()


def test_a_read_is_bounded_in_bytes_and_lets_a_single_larger_record_through(engine: Engine, readers: Readers) -> None:
    stream = TableStream(engine, fetch_bytes_max=100_000)
    make_topic(stream, 1)
    append(stream, [NewRecord(TOPIC, b"key", bytes(size)) for size in (40_000, 40_000, 40_000, 300_000, 10)])
    reader = readers.of(stream, TOPIC)
    sizes = [[len(record.value) for record in reader.turn()] for _turn in range(3)]
    # The record that crosses the bound still comes, so that one that is larger than the bound comes at all.
    assert sizes == [[40_000, 40_000, 40_000], [300_000], [10]]
    reader.consumer.close()


def test_what_a_crash_left_behind_in_a_trim_goes_with_the_next_one(engine: Engine) -> None:
    stream = TableStream(engine)
    make_topic(stream, 1)
    append(stream, numbered(1, 10))
    with engine.begin() as connection:
        connection.execute(text("UPDATE stream_partition SET start_offset = 4"))
    stream.trim(TOPIC, 0, 6)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT min(record_offset) FROM stream_record")).scalar_one() == 6


def test_a_reader_whose_log_was_trimmed_to_the_end_is_stopped(engine: Engine, readers: Readers) -> None:
    stream = TableStream(engine, membership_check_ms=1)
    make_topic(stream, 1)
    reader = readers.of(stream, TOPIC)
    turn_until([reader], lambda: reader.owned() == {0})
    with engine.begin() as connection:
        connection.execute(text("UPDATE stream_partition SET start_offset = 5, end_offset = 5"))
    with pytest.raises(OffsetOutOfRange, match="wants offset 0 of topic-bulk-prepare/0, whose log begins at 5"):
        turn_until([reader], lambda: False)
    reader.consumer.close()


def test_lock_classes_stay_what_they_are() -> None:
    # A release that changed them would not see the owners of the release before it.
    assert lock_class("owner", "bulk-prepare", TOPIC) == -1674520521
    assert lock_class("member", "bulk-prepare", TOPIC) == 1292173158


def test_a_database_that_is_away_is_stream_unavailable(readers: Readers) -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", application_name="tests")
    stream = TableStream(engine)
    with closing(stream.producer()) as producer:
        for refused in (
            lambda: stream.partitions(TOPIC),
            lambda: stream.end_offsets(TOPIC),
            lambda: producer.produce(numbered(1, 1)),
            lambda: readers.of(stream, TOPIC).turn(),
        ):
            with pytest.raises(StreamUnavailable):
                refused()
    engine.dispose()


def test_what_is_read_and_past_its_time_is_forgotten(engine: Engine) -> None:
    """Old records go as far as the reader has come; young ones and unread ones stay."""
    stream = TableStream(engine)
    stream.create_topics([TopicDescription("kept", 1, 60_000)])
    with closing(stream.producer()) as producer:
        producer.produce(NewRecord("kept", b"k", str(number).encode()) for number in range(10))
    stream.trim_read("kept", {0: 10})
    assert stream.start_offsets("kept") == {0: 0}, "all of it is young"
    with engine.begin() as tx:
        tx.execute(
            text("UPDATE stream_record SET appended_date = now() - interval '61 seconds' WHERE record_offset < 7")
        )
    stream.trim_read("kept", {0: 4})
    assert stream.start_offsets("kept") == {0: 4}, "the rest is unread"
    stream.trim_read("kept", {0: 10})
    assert stream.start_offsets("kept") == {0: 7}, "the rest is young"
    stream.trim_read("kept", {0: 10})
    assert [record.offset for record in stream.read("kept", 0, 7, 100)] == [7, 8, 9]
