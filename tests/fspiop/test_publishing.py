"""The publisher: requests are acknowledged together, fail only with their own batch, and never wait for ever."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bulk_api_adapter.bounded_threads import BoundedThreads
from bulk_api_adapter.publishing import Publisher, QueueFull
from stream.interface import NewRecord, NotAcknowledged, Producer, StreamError, StreamUnavailable, UnknownTopic
from tests.fspiop.fakes import MemoryStream

WAIT_S = 60


def record(number: int, topic: str = "topic") -> NewRecord:
    return NewRecord(topic, number.to_bytes(16, "big"), b"value")


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)


@pytest.fixture
def stream() -> MemoryStream:
    return MemoryStream()


@pytest.fixture
def publisher(stream: MemoryStream) -> Iterator[Publisher]:
    publisher = Publisher(stream, queue_records_max=500, batch_records_max=100, acks_wait_ms=5_000)
    yield publisher
    publisher.close()


def test_requests_that_wait_at_the_same_time_are_acknowledged_together(
    stream: MemoryStream, publisher: Publisher
) -> None:
    async def publish_many() -> None:
        stream.acknowledges.clear()
        first = asyncio.create_task(publisher.publish(record(0)))
        await until(lambda: stream.producers == 1)
        rest = [asyncio.create_task(publisher.publish(record(number))) for number in range(1, 81)]
        await asyncio.sleep(0)
        assert not first.done()
        stream.acknowledges.set()
        await asyncio.gather(first, *rest)

    asyncio.run(publish_many())
    assert [len(batch) for batch in stream.batches] == [1, 80]
    assert stream.records == [record(number) for number in range(81)]
    assert stream.producers == 1


def test_a_batch_has_a_bound(stream: MemoryStream, publisher: Publisher) -> None:
    async def publish_many() -> None:
        stream.acknowledges.clear()
        first = asyncio.create_task(publisher.publish(record(0)))
        await until(lambda: stream.producers == 1)
        rest = [asyncio.create_task(publisher.publish(record(number))) for number in range(1, 251)]
        await asyncio.sleep(0)
        stream.acknowledges.set()
        await asyncio.gather(first, *rest)

    asyncio.run(publish_many())
    assert [len(batch) for batch in stream.batches] == [1, 100, 100, 50]


def test_a_failure_fails_its_own_batch_and_the_next_has_a_new_producer(
    stream: MemoryStream, publisher: Publisher
) -> None:
    bad = record(1)

    def fails(records: list[NewRecord]) -> None:
        if bad in records:
            raise StreamUnavailable("the connection broke")

    stream.fails = fails

    async def publish_three() -> list[BaseException | None]:
        outcomes: list[BaseException | None] = []
        for number in range(3):
            outcomes += await asyncio.gather(publisher.publish(record(number)), return_exceptions=True)
        return outcomes

    first, second, third = asyncio.run(publish_three())
    assert (first, third) == (None, None)
    assert isinstance(second, StreamUnavailable)
    assert stream.records == [record(0), record(2)]
    assert (stream.producers, stream.closed_producers) == (2, 1)


def test_an_unknown_topic_fails_alone_in_its_batch(stream: MemoryStream, publisher: Publisher) -> None:
    stream.unknown_topics = {"missing"}

    async def publish_many() -> list[BaseException | None]:
        stream.acknowledges.clear()
        first = asyncio.create_task(publisher.publish(record(0)))
        await until(lambda: stream.producers == 1)
        topics = ["topic", "missing", "topic"]
        rest = [asyncio.create_task(publisher.publish(record(1 + n, topic))) for n, topic in enumerate(topics)]
        await asyncio.sleep(0)
        stream.acknowledges.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    outcomes = asyncio.run(publish_many())
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), UnknownTopic, type(None)]
    assert stream.records == [record(0), record(1), record(3)]


def test_a_stream_that_refuses_is_a_stream_that_is_away(
    stream: MemoryStream, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the right to write was taken away: the sender is told to come again, and operators read why."""

    def refuse() -> Producer:
        raise StreamError("not authorized")

    monkeypatch.setattr(stream, "producer", refuse)
    with pytest.raises(StreamUnavailable, match="not authorized"):
        asyncio.run(publisher.publish(record(0)))


def test_every_request_of_a_failed_batch_has_an_error_of_its_own(stream: MemoryStream, publisher: Publisher) -> None:
    stream.down = True

    async def publish_two() -> list[BaseException | None]:
        return await asyncio.gather(*(publisher.publish(record(n)) for n in range(2)), return_exceptions=True)

    one, other = asyncio.run(publish_two())
    assert isinstance(one, StreamUnavailable)
    assert isinstance(other, StreamUnavailable)
    assert one is not other


def test_a_full_queue_refuses_at_once_and_takes_records_again_later(stream: MemoryStream) -> None:
    publisher = Publisher(stream, queue_records_max=2, batch_records_max=1, acks_wait_ms=5_000)

    async def fill() -> None:
        stream.acknowledges.clear()
        first = asyncio.create_task(publisher.publish(record(0)))
        await until(lambda: stream.producers == 1)
        waiting = [asyncio.create_task(publisher.publish(record(number))) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await publisher.publish(record(3))
        stream.acknowledges.set()
        await asyncio.gather(first, *waiting)
        await publisher.publish(record(4))

    asyncio.run(fill())
    publisher.close()
    assert stream.records == [record(0), record(1), record(2), record(4)]


def test_a_request_that_gave_up_before_its_batch_began_is_not_published(
    stream: MemoryStream, publisher: Publisher
) -> None:
    async def give_up() -> None:
        stream.acknowledges.clear()
        first = asyncio.create_task(publisher.publish(record(0)))
        await until(lambda: stream.producers == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await publisher.publish(record(1))
        stream.acknowledges.set()
        await first
        await publisher.publish(record(2))

    asyncio.run(give_up())
    assert stream.records == [record(0), record(2)]


def test_no_acknowledgement_in_time_is_an_error(stream: MemoryStream) -> None:
    publisher = Publisher(stream, queue_records_max=10, batch_records_max=10, acks_wait_ms=10)
    stream.acknowledges.clear()
    with pytest.raises(StreamUnavailable, match="not acknowledged"):
        asyncio.run(publisher.publish(record(0)))
    publisher.close()
    assert not stream.records
    assert issubclass(NotAcknowledged, StreamUnavailable)


def test_a_bug_in_a_producer_does_not_end_the_thread(stream: MemoryStream, publisher: Publisher) -> None:
    def broken(_: list[NewRecord]) -> None:
        raise ZeroDivisionError("a bug")

    stream.fails = broken
    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(publisher.publish(record(0)))
    stream.fails = lambda _: None
    asyncio.run(publisher.publish(record(1)))
    assert stream.records == [record(1)]


def test_closing_publishes_what_waits_and_refuses_what_comes(stream: MemoryStream, publisher: Publisher) -> None:
    # Apps that other tests have left to themselves may have threads of that name, too.
    before = set(threading.enumerate())

    async def close_while_waiting() -> None:
        stream.acknowledges.clear()
        waiting = [asyncio.create_task(publisher.publish(record(number))) for number in range(3)]
        await until(lambda: stream.producers == 1)
        closing = asyncio.get_running_loop().run_in_executor(None, publisher.close)
        stream.acknowledges.set()
        await asyncio.gather(*waiting)
        await closing
        with pytest.raises(StreamError, match="closed"):
            await publisher.publish(record(3))

    asyncio.run(close_while_waiting())
    assert stream.records == [record(0), record(1), record(2)]
    assert stream.closed_producers == stream.producers
    assert "publisher" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_a_loop_that_ended_meanwhile_does_not_disturb_the_others(stream: MemoryStream, publisher: Publisher) -> None:
    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await publisher.publish(record(0))

    stream.acknowledges.clear()
    asyncio.run(give_up())
    stream.acknowledges.set()
    asyncio.run(publisher.publish(record(1)))
    assert stream.records[-1] == record(1)


def test_a_blocking_call_that_hangs_keeps_its_place_until_it_ends() -> None:
    ends = threading.Event()

    async def hang() -> None:
        threads = BoundedThreads(1, "test")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.run(lambda: ends.wait(WAIT_S))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.run(lambda: pytest.fail("there was no place for this call"))
        ends.set()
        assert await threads.run(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        threads.close()

    asyncio.run(hang())
