"""A store that is slow or away holds the locks of a batch for a bounded time, and batches are small until it is quick."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from handlers.handler import Output, SlowDown, TooMuch
from handlers.loop import LoopLimits
from handlers.object_calls import ObjectCalls
from object_store.content import content_key
from stream.interface import Stream
from tests.fspiop.fakes import MemoryObjectStore
from tests.handlers.counting import CountingHandler, create, make_counting_loop
from tests.handlers.test_loop import append, applied, outputs, running, wait_until

WAIT_S = 30


class SlowStore(MemoryObjectStore):
    """Every call hangs until `answers` is set; counts how many do at once."""

    def put_ms(self, key: str) -> int | None:
        return None


def test_everything_is_kept_when_the_block_ends_several_at_a_time() -> None:
    store = SlowStore()
    store.answers.clear()
    bodies = [b"%d" % number for number in range(20)]
    keys: list[str] = []

    def keep() -> None:
        with ObjectCalls(store, calls_at_once_max=4, wait_ms=WAIT_S * 1_000).of_batch() as calls:
            keys.extend(calls.put(body) for body in bodies)

    thread = threading.Thread(target=keep)
    thread.start()
    wait_until(lambda: store.puts_running == 4)
    store.answers.set()
    thread.join(WAIT_S)
    assert keys == [content_key(body) for body in bodies]
    assert {key: store.objects[key] for key in keys} == dict(zip(keys, bodies, strict=True))
    assert store.puts_running_most == 4


def test_a_store_that_hangs_is_waited_for_no_longer_than_its_time() -> None:
    store = SlowStore()
    store.answers.clear()
    calls_of_handler = ObjectCalls(store, calls_at_once_max=2, wait_ms=50)

    def keep() -> None:
        with calls_of_handler.of_batch() as calls:
            for number in range(10):
                calls.put(b"%d" % number)

    for _ in range(3):
        # The second and third batch find both threads taken: they hang no less, and no thread is added.
        with pytest.raises(TooMuch, match="longer than 50 ms"):
            keep()
    assert store.puts_running_most == 2
    store.answers.set()


def test_a_store_that_is_away_slows_down() -> None:
    store = SlowStore(down=True)
    with pytest.raises(SlowDown) as slow, ObjectCalls(store).of_batch() as calls:
        calls.put(b"x")
    assert not isinstance(slow.value, TooMuch)


def test_results_come_in_order_and_reading_does_not_run_far_ahead() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def read(number: int) -> int:
        with lock:
            begun.append(number)
        time.sleep(0.001 * (number % 3))
        return -number

    with ObjectCalls(MemoryObjectStore(), calls_at_once_max=3).of_batch() as calls:
        for taken, result in enumerate(calls.in_order(read, range(50))):
            assert result == -taken
            assert len(begun) <= taken + 3
    assert sorted(begun) == list(range(50))


class SlowStoreHandler(CountingHandler):
    """Cannot do more than `most` inputs at once."""

    most = 10**9

    def handle(self, tx: Connection, messages: Sequence[Any]) -> list[Output]:
        made = super().handle(tx, messages)
        if len(messages) > self.most:
            raise TooMuch("the store is slow")
        return made


def test_a_batch_that_is_too_much_is_halved_and_the_next_ones_grow_again(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    handler = SlowStoreHandler()
    handler.most = 10
    append(stream, range(1_000))
    limits = LoopLimits(batch_items=100, batch_wait_ms=50, pause_ms=1)
    with running(make_counting_loop(engine, stream, handler, limits)) as failures:
        wait_until(lambda: applied(engine) >= 500)
        handler.most = 10**9
        wait_until(lambda: applied(engine) == 1_000)
        append(stream, range(1_000, 2_000))
        wait_until(lambda: applied(engine) == 2_000)
    assert failures == []
    # Nothing is lost on the way, nothing done twice, and the bound is used again in full.
    assert outputs(stream) == Counter(range(2_000))
    assert handler.batches[0] > 10
    assert max(handler.batches[-20:]) > 50
