"""The clock as a partition: numbered ticks, one process that ticks, another that takes over."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Engine

from stream.interface import StreamUnavailable
from stream.ticks import TICK, tick_consumer
from tests.stream.reader import Reader, Readers, turn_until
from tests.stream.test_table import end_sessions

TICK_MS = 20


Clock = Callable[..., Reader]


@pytest.fixture
def clock(engine: Engine, readers: Readers) -> Clock:
    """Makes a member of the group that reads the clock."""

    def make(progress: dict[int, int], tick_ms: int = TICK_MS) -> Reader:
        consumer = partial(tick_consumer, engine, "timeout", tick_ms, membership_check_ms=10)
        return readers.made_by(consumer, progress)

    return make


def test_ticks_are_numbered_on_from_the_progress_and_at_least_tick_ms_apart(clock: Clock) -> None:
    one = clock({0: 41})
    turn_until([one], lambda: len(one.records) == 4)
    one.consumer.close()
    assert [(record.partition, record.offset) for record in one.records] == [(TICK, n) for n in range(41, 45)]
    times = [record.timestamp_ms for record in one.records]
    # A millisecond of slack, as the times are cut to whole ones.
    assert all(later - earlier >= TICK_MS - 1 for earlier, later in itertools.pairwise(times))
    assert one.revoked == [([0], False)]


def test_a_tick_that_is_not_due_is_waited_for_no_longer_than_asked(clock: Clock) -> None:
    one = clock({}, tick_ms=3_600_000)
    assert len(one.turn(timeout_ms=0)) == 1
    assert one.turn(timeout_ms=0) == []
    assert one.turn(timeout_ms=5) == []
    one.consumer.close()


def test_one_member_ticks_and_another_takes_over_where_it_was(clock: Clock) -> None:
    progress: dict[int, int] = {}
    one, other = clock(progress), clock(progress)
    turn_until([one, other], lambda: len(one.records) == 3)
    assert other.records == []
    one.consumer.close()
    turn_until([other], lambda: len(other.records) == 2)
    assert [record.offset for record in one.records + other.records] == [0, 1, 2, 3, 4]
    other.consumer.close()


def test_a_clock_whose_session_is_lost_ticks_no_more(clock: Clock, engine: Engine) -> None:  # D16
    one = clock({})
    turn_until([one], lambda: len(one.records) == 1)
    end_sessions(engine, "tests")
    with pytest.raises(StreamUnavailable):
        turn_until([one], lambda: False)
    assert one.revoked == [([0], True)]
    assert one.consumer.owned() == frozenset()
    one.consumer.close()
