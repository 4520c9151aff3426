"""Blocking calls from the event loop, on a few threads of their own.

A call that hangs keeps its place until it really ends: a store that is away costs `calls_max` threads and bodies, and
nothing piles up behind them, because who waits for a place waits on the event loop and gives up there.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


class BoundedThreads:
    """Runs at most `calls_max` calls at a time, for one event loop."""

    def __init__(self, calls_max: int, name: str) -> None:
        self._places = asyncio.Semaphore(calls_max)
        self._executor = ThreadPoolExecutor(calls_max, thread_name_prefix=name)

    async def run(self, call: Callable[[], Result]) -> Result:
        """The call's result, or what it raised. Cancelling ends the waiting for it, not the call."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        future = self._executor.submit(call)

        def free_the_place(_: Future[Result]) -> None:
            # A loop that was closed meanwhile has nobody left who waits for the place.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._places.release)

        future.add_done_callback(free_the_place)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Start no more calls; does not wait for those that run."""
        self._executor.shutdown(wait=False, cancel_futures=True)
