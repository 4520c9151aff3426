"""An object store that is slow holds no handler's transaction for longer than its time, and small batches get through.

Whatever the handlers wait for by default, here they wait half a second, and a call takes a tenth: the proportions of five
seconds and a store whose calls take one.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from domain.combinations import (
    TOPIC_BULK_FULFIL,
    TOPIC_BULK_GET,
    TOPIC_BULK_PREPARE,
    TOPIC_SINGLE_NOTIFICATION,
    TOPIC_TRANSFER_GET,
)
from handlers.handler import Output, TooMuch
from handlers.loop import HandlerLoop, LoopLimits
from handlers.object_calls import ObjectCalls
from object_store.folder import FolderObjectStore
from schemas.codec import codec
from stream.interface import NewRecord, Stream
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, world
from tests.flows.test_authority_and_resends import errors
from tests.handlers.test_loop import running, wait_until
from tests.pipeline import Pipeline

BATCH = 64
CALL_S = 0.1
WAIT_MS = 500
# One after the other the calls of a batch take thirteen seconds; within its time it takes one.
BOUND_S = 10.0
FAILED = {"errorInformation": {"errorCode": "5100", "errorDescription": "Generic Payee error"}}


class SlowStore(FolderObjectStore):
    """The calls named in `slow` take their time, `call_s`; `before_get` is done in each get."""

    slow: frozenset[str] = frozenset()
    call_s: float = CALL_S
    before_get: Callable[[], None] = staticmethod(lambda: None)

    def _wait(self, call: str) -> None:
        if call in self.slow:
            time.sleep(self.call_s)

    def get(self, key: str) -> bytes:
        self._wait("get")
        self.before_get()
        return super().get(key)

    def put(self, key: str, body: bytes) -> None:
        self._wait("put")
        super().put(key, body)

    def put_ms(self, key: str) -> int | None:
        self._wait("put_ms")
        return super().put_ms(key)

    def keys(self, prefix: str) -> list[str]:
        self._wait("keys")
        return super().keys(prefix)


READS = frozenset({"get", "keys"})
WRITES = frozenset({"put", "put_ms"})


@pytest.fixture
def parts() -> str:
    """The store is the test's own."""
    return "queues"


@pytest.fixture
def object_store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path / "objects")


@pytest.fixture
def slow(pipeline: Pipeline) -> Iterator[SlowStore]:
    store = pipeline.store
    assert isinstance(store, SlowStore)
    yield store
    store.slow = frozenset()


def slow_down(pipeline: Pipeline, store: SlowStore, calls: frozenset[str], wait_ms: int = WAIT_MS) -> None:
    """From now on: what came before had a busy machine's time."""
    store.slow = calls
    for handler in pipeline.handlers.values():
        if hasattr(handler, "_calls"):
            handler._calls = ObjectCalls(store, wait_ms=wait_ms)


def body_of_one(pipeline: Pipeline, **extra: Any) -> dict[str, Any]:
    return bulk([item()], now_ms=pipeline.now(), **extra)


def accepted(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Bulks that wait for the payee's answer."""
    bodies = [body_of_one(pipeline) for _ in range(BATCH)]
    for body in bodies:
        pipeline.post(body, source=PAYER)
    pipeline.run()
    return bodies


def answers(bodies: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(body["bulkTransferId"], answer([committed(body["individualTransfers"][0])])) for body in bodies]


def refused_bulks(pipeline: Pipeline) -> str:
    for _ in range(BATCH):
        pipeline.post(body_of_one(pipeline, payeeFsp="ghost"), source=PAYER)
    return TOPIC_BULK_PREPARE


def bulks_of_somebody_else(pipeline: Pipeline) -> str:
    for _ in range(BATCH):
        pipeline.post(body_of_one(pipeline), source=PAYEE)
    return TOPIC_BULK_PREPARE


def resent_bulks(pipeline: Pipeline) -> str:
    bodies = [body_of_one(pipeline, payeeFsp="ghost") for _ in range(BATCH)]
    for _ in range(2):
        pipeline.run()
        for body in bodies:
            pipeline.post(body, source=PAYER)
    return TOPIC_BULK_PREPARE


def answers_that_are_refused(pipeline: Pipeline) -> str:
    for body in accepted(pipeline):
        pipeline.put(body["bulkTransferId"], answer([]), source=PAYER)
    return TOPIC_BULK_FULFIL


def errors_of_the_payee(pipeline: Pipeline) -> str:
    for body in accepted(pipeline):
        pipeline.put_error(body["bulkTransferId"], FAILED, source=PAYEE)
    return TOPIC_BULK_FULFIL


def resent_answers(pipeline: Pipeline) -> str:
    said = answers(accepted(pipeline))
    for _ in range(2):
        pipeline.run()
        for bulk_transfer_id, body in said:
            pipeline.put(bulk_transfer_id, body, source=PAYEE)
    return TOPIC_BULK_FULFIL


def single_transfers_that_are_refused(pipeline: Pipeline) -> str:
    for _ in range(BATCH):
        singles.post(pipeline, singles.transfer(now_ms=pipeline.now(), payeeFsp="ghost"))
    pipeline.held.add(TOPIC_SINGLE_NOTIFICATION)
    pipeline.run()
    return TOPIC_SINGLE_NOTIFICATION


def questions_about_bulks(pipeline: Pipeline) -> str:
    for body in accepted(pipeline):
        pipeline.get(body["bulkTransferId"], source=PAYER)
    return TOPIC_BULK_GET


def questions_about_ended_bulks(pipeline: Pipeline) -> str:
    bodies = accepted(pipeline)
    for body in bodies:
        pipeline.put_error(body["bulkTransferId"], FAILED, source=PAYEE)
    pipeline.run()
    for body in bodies:
        pipeline.get(body["bulkTransferId"], source=PAYER)
    return TOPIC_BULK_GET


def questions_about_unread_bulks(pipeline: Pipeline) -> str:
    for _ in range(BATCH):
        body = body_of_one(pipeline)
        pipeline.post(body, source=PAYER)
        pipeline.get(body["bulkTransferId"], source=PAYER)
    return TOPIC_BULK_GET


def questions_about_unread_transfers(pipeline: Pipeline) -> str:
    for _ in range(BATCH):
        body = singles.transfer(now_ms=pipeline.now())
        singles.post(pipeline, body)
        singles.get(pipeline, body["transferId"], source=PAYER)
    return TOPIC_TRANSFER_GET


@pytest.mark.parametrize(
    ("waiting", "calls"),
    [
        (refused_bulks, READS),
        (refused_bulks, WRITES),
        (bulks_of_somebody_else, WRITES),
        (resent_bulks, WRITES),
        (answers_that_are_refused, READS),
        (answers_that_are_refused, WRITES),
        (errors_of_the_payee, WRITES),
        (resent_answers, WRITES),
        (single_transfers_that_are_refused, WRITES),
        (questions_about_bulks, WRITES),
        (questions_about_ended_bulks, WRITES),
        (questions_about_unread_bulks, READS),
        (questions_about_unread_transfers, READS),
    ],
)
def test_a_large_batch_is_too_much_after_its_time_and_a_small_one_gets_through(
    pipeline: Pipeline, slow: SlowStore, waiting: Callable[[Pipeline], str], calls: frozenset[str]
) -> None:
    topic = waiting(pipeline)
    batch = list(pipeline.queues[topic])
    assert len(batch) == BATCH
    before = world(pipeline.engine)
    slow_down(pipeline, slow, calls)
    with pytest.raises(TooMuch, match="longer than 500 ms"):
        pipeline.handle(topic, batch)
    assert world(pipeline.engine) == before, "it was rolled back"
    get_through(pipeline, topic, batch)


def get_through(pipeline: Pipeline, topic: str, batch: Sequence[Any]) -> None:
    """As the loop does it: halves, until they are small enough."""
    while batch:
        size = len(batch)
        while True:
            try:
                pipeline.handle(topic, batch[:size])
                break
            except TooMuch:
                size = max(size // 2, 1)
        batch = batch[size:]


def test_the_loop_gets_through_with_small_batches(pipeline: Pipeline, slow: SlowStore) -> None:
    topic = refused_bulks(pipeline)
    handler, took_s, too_much = pipeline.handlers[topic], [], []
    handle = handler.handle

    def timed(tx: Connection, messages: Sequence[Any]) -> list[Output]:
        began_s = time.monotonic()
        try:
            return handle(tx, messages)
        except TooMuch:
            too_much.append(len(messages))
            raise
        finally:
            took_s.append(time.monotonic() - began_s)

    handler.handle = timed  # type: ignore[method-assign]
    append(pipeline.stream, topic, pipeline.queues[topic])
    # In the same proportion, but with more room for a busy machine: there a small batch has to get through as well.
    slow.call_s = 3 * CALL_S
    slow_down(pipeline, slow, READS | WRITES, wait_ms=3 * WAIT_MS)
    loop = HandlerLoop(
        handler,
        pipeline.engine,
        pipeline.stream,
        LoopLimits(batch_wait_ms=50, pause_ms=1),
        lambda instance, on_assign, on_revoke: pipeline.stream.consumer(
            handler.name, topic, instance, on_assign, on_revoke
        ),
    )
    with running(loop) as failures:
        wait_until(
            lambda: Counter(states[-1] for states in world(pipeline.engine).bulks.values())["REJECTED"] == BATCH,
            seconds=200,
        )
    assert failures == []
    assert too_much, "the whole batch was too much"
    assert max(took_s) < BOUND_S


def append(stream: Stream, topic: str, messages: Sequence[Any]) -> None:
    producer = stream.producer()
    producer.produce(
        NewRecord(topic, message.bulk_transfer_id, codec(type(message)).encode([message])) for message in messages
    )
    producer.wait_for_acks(10_000)
    producer.close()


def test_no_payload_is_read_while_a_bulk_is_locked(pipeline: Pipeline, slow: SlowStore, engine: Engine) -> None:
    # Two answers to one bulk in one batch are two rounds; the first one's lock is held in the second.
    body = body_of_one(pipeline)
    pipeline.post(body, source=PAYER)
    pipeline.run()
    [(bulk_transfer_id, said)] = answers([body])
    for _ in range(2):
        pipeline.put(bulk_transfer_id, said, source=PAYEE)
    reads: list[int] = []

    def lock() -> None:
        with engine.begin() as other:
            reads.append(len(other.execute(text("SELECT FROM bulk_transfer FOR SHARE NOWAIT")).all()))

    slow.before_get = lock
    pipeline.step(TOPIC_BULK_FULFIL)
    slow.before_get = lambda: None
    assert reads == [1, 1]


def test_waiting_for_a_lock_takes_nothing_of_the_stores_time(pipeline: Pipeline, slow: SlowStore) -> None:
    # Ten times what the call itself needs, so that it is the wait alone that would use it up.
    calls = ObjectCalls(slow, wait_ms=2_000)
    slow.slow = WRITES
    with calls.of_batch() as batch:
        time.sleep(2.5)
        key = batch.put(b"x")
    assert slow.get(key) == b"x"


def test_a_resend_beside_its_original_is_told_what_the_original_was(pipeline: Pipeline, slow: SlowStore) -> None:
    """What the first round keeps is there when the second asks for it, be the store as slow as it is."""
    body = body_of_one(pipeline, payeeFsp="ghost")
    for _ in range(2):
        pipeline.post(body, source=PAYER)
    # A list and an error are kept beside each other; slow enough to be under way, and within the time.
    slow.slow = frozenset({"put"})
    pipeline.step(TOPIC_BULK_PREPARE)
    assert errors(pipeline, PAYER) == ["3203 Payee FSP ID not found - Participant ghost not found"] * 2
