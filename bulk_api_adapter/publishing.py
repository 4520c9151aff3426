"""Records of many requests to the stream, acknowledged together.

`publish` is called on the event loop and returns when the record is durable. One thread owns the producer: it takes what
is waiting, hands it over as one call, waits for the acknowledgements once, and lets all of those requests go on; whatever
arrives meanwhile is the next batch. A request alone therefore waits for one acknowledgement, and a hundred at once wait
for two, not for a hundred.

The queue is bounded: beyond it `publish` fails at once. When the stream does not answer, the requests of that batch fail,
and the next batch gets a new producer. A request that has given up before its batch began is left out of it; one that gave
up later may still have been published (sending it again is safe, architecture §6). When the process dies, all that was not
acknowledged was not answered either.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from stream.interface import NewRecord, Producer, Stream, StreamError, StreamUnavailable, UnknownTopic

logger = logging.getLogger(__name__)

# How long `close` waits for the thread beyond the acknowledgement that it may be waiting for.
_CLOSE_GRACE_MS = 1_000


class QueueFull(StreamUnavailable):
    """More records wait for the stream than the queue may hold."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record, and the request that waits for it."""

    record: NewRecord
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def resolve(self, error: Exception | None) -> None:
        """Let the request go on, from the publisher's thread; every request gets an error of its own."""
        # A loop that was closed meanwhile has nobody left who waits.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._resolve, error)

    def _resolve(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Publisher:
    """Publishes from one event loop or several. The thread starts with the first record and ends with `close`."""

    def __init__(self, stream: Stream, *, queue_records_max: int, batch_records_max: int, acks_wait_ms: int) -> None:
        self._stream = stream
        self._queue_records_max = queue_records_max
        self._batch_records_max = batch_records_max
        self._acks_wait_ms = acks_wait_ms
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False
        # The thread's own.
        self._producer: Producer | None = None

    async def publish(self, record: NewRecord) -> None:
        """Return when the record is durable; raises StreamError, QueueFull among them."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(record, loop, loop.create_future())
        with self._changed:
            if self._closing:
                raise StreamUnavailable("the publisher is closed")
            if len(self._queue) >= self._queue_records_max:
                raise QueueFull(f"{len(self._queue)} records wait for the stream")
            self._queue.append(waiting)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
                self._thread.start()
            self._changed.notify()
        await waiting.done

    def close(self) -> None:
        """Publish what waits, then end the thread; gives up after the time that two batches may take."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join((2 * self._acks_wait_ms + _CLOSE_GRACE_MS) / 1000)

    def _run(self) -> None:
        while batch := self._next_batch():
            self._publish(batch)
        self._give_up_producer()

    def _next_batch(self) -> list[_Waiting]:
        """What waits, up to the limit; waits for the first one; nothing when the publisher is closed and done."""
        with self._changed:
            while True:
                batch: list[_Waiting] = []
                while self._queue and len(batch) < self._batch_records_max:
                    waiting = self._queue.popleft()
                    if not waiting.done.done():
                        batch.append(waiting)
                if batch or self._closing:
                    return batch
                self._changed.wait()

    def _publish(self, batch: Sequence[_Waiting]) -> None:
        try:
            self._append([waiting.record for waiting in batch])
        except UnknownTopic as error:
            self._give_up_producer()
            # A topic that is not provisioned must not stop the requests that go to another one. What was appended before
            # the error is appended twice then, and the handlers drop a repeat by its request id.
            if len(batch) > 1:
                for waiting in batch:
                    self._publish([waiting])
                return
            batch[0].resolve(UnknownTopic(str(error)))
        except StreamError as error:
            # Away, or it refuses what is asked of it (its operators have to change that): to a sender both are the same.
            self._give_up_producer()
            for waiting in batch:
                waiting.resolve(StreamUnavailable(str(error)))
        except Exception as error:
            # A bug. The requests of this batch fail with it, and the thread goes on for the others.
            logger.exception("publishing %d records failed", len(batch))
            self._give_up_producer()
            for waiting in batch:
                waiting.resolve(RuntimeError(f"publishing failed: {error!r}"))
        else:
            for waiting in batch:
                waiting.resolve(None)

    def _append(self, records: Sequence[NewRecord]) -> None:
        if self._producer is None:
            self._producer = self._stream.producer()
        self._producer.produce(records)
        self._producer.wait_for_acks(self._acks_wait_ms)

    def _give_up_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # What it still holds is lost to us either way; the next batch has a producer of its own.
            with suppress(Exception):
                producer.close()
