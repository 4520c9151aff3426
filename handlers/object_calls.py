"""Calls to the object store within a transaction that holds locks: several at once, and for a bounded time.

A call takes milliseconds on S3, and seconds when it is slow; a batch may end hundreds of bulks, and whoever needs their
locks waits meanwhile. So the calls of a batch run `calls_at_once_max` at a time, and all of them together have `wait_ms`,
counted from the first one: what the handler itself waits for before it, a lock perhaps, is no fault of the store's. After
that the batch is rolled back, its locks are free, and it is tried again with half of its records (`TooMuch`): a store
that is slow makes small batches, one that is away makes none, and neither holds a lock for longer than this.

No more bodies are held than calls run at once. A call that hangs keeps its thread until the store's own client gives up;
others wait for the threads that are left.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from handlers.handler import TooMuch
from handlers.notices import put_content_or_slow_down
from object_store.content import content_key
from object_store.interface import ObjectStore

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class ObjectCalls:
    """The threads of one handler; made once."""

    def __init__(self, store: ObjectStore, *, calls_at_once_max: int = 8, wait_ms: int = 5_000) -> None:
        self.store = store
        self._calls_at_once_max = calls_at_once_max
        self._wait_ms = wait_ms
        self._executor = ThreadPoolExecutor(calls_at_once_max, thread_name_prefix="object-calls")

    @contextmanager
    def of_batch(self) -> Iterator["BatchCalls"]:
        """The calls of one batch, whose time begins with the first; at the end of the block everything is kept."""
        calls = BatchCalls(self.store, self._executor, self._calls_at_once_max, self._wait_ms)
        try:
            yield calls
            calls.finish()
        finally:
            calls.cancel()


class BatchCalls:
    """Every method raises SlowDown while the store is away, TooMuch when the time is over."""

    def __init__(self, store: ObjectStore, executor: ThreadPoolExecutor, calls_at_once_max: int, wait_ms: int) -> None:
        self._store = store
        self._executor = executor
        self._calls_at_once_max = calls_at_once_max
        self._wait_ms = wait_ms
        self._deadline_s: float | None = None
        self._puts: deque[Future[str]] = deque()

    def put(self, body: bytes) -> str:
        """The content key of the bytes, which are kept when the block of `of_batch` has ended."""
        while len(self._puts) >= self._calls_at_once_max:
            self._wait_for(self._puts.popleft())
        self._puts.append(self._begin(put_content_or_slow_down, self._store, body))
        return content_key(body)

    def in_order(self, call: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
        """The results of the calls in the order of the arguments; runs ahead of who takes them, but not far."""
        left = iter(arguments)
        ahead: deque[Future[Result]] = deque()
        try:
            while True:
                for argument in islice(left, self._calls_at_once_max - len(ahead)):
                    ahead.append(self._begin(call, argument))
                if not ahead:
                    return
                yield self._wait_for(ahead.popleft())
        finally:
            for future in ahead:
                future.cancel()

    def finish(self) -> None:
        """Wait until everything is kept."""
        while self._puts:
            self._wait_for(self._puts.popleft())

    def cancel(self) -> None:
        """Begin nothing more of this batch; a call under way ends by itself, and what it keeps is litter at worst."""
        for future in self._puts:
            future.cancel()

    def _begin(self, call: Callable[..., Result], *arguments: object) -> "Future[Result]":
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._wait_ms / 1000
        return self._executor.submit(call, *arguments)

    def _wait_for(self, future: "Future[Result]") -> Result:
        assert self._deadline_s is not None, "what is waited for has begun"
        try:
            return future.result(max(0.0, self._deadline_s - time.monotonic()))
        except TimeoutError as slow:
            future.cancel()
            raise TooMuch(f"the object store took longer than {self._wait_ms} ms for a batch") from slow
