"""A TCP proxy on loopback that can hold everything that goes through it, delay it, or be away: trouble, made to order."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

_CHUNK_BYTES = 65_536
Result = TypeVar("Result")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Leads to a Unix socket or a loopback port. Used as a context; may be told what to do from any thread."""

    def __init__(self, target: Path | int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._passes = asyncio.Event()
        self._passes.set()
        self._delay_s = 0.0
        self._is_away = False
        self._connections: dict[asyncio.Task[None], Streams] = {}
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold(self) -> None:
        """From now on connections are accepted and nothing moves on any of them: a server that hangs."""
        self._do(self._passes.clear)

    def delay(self, delay_ms: int) -> None:
        """From now on everything comes so much later, each way: a server that is slow."""
        self._do(lambda: setattr(self, "_delay_s", delay_ms / 1000))

    def go_away(self) -> None:
        """End every connection, and every new one at once: a server that is not there."""

        def cut() -> None:
            self._is_away = True
            for connection in self._connections:
                connection.cancel()

        self._do(cut)

    def release(self) -> None:
        """All is well again."""

        def heal() -> None:
            self._is_away, self._delay_s = False, 0.0
            self._passes.set()

        self._do(heal)

    def _do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        self._run(act())

    def _run(self, work: Awaitable[Result]) -> Result:
        async def wait() -> Result:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = (reader, writer)
        try:
            if not self._is_away:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Either side has gone, or was made to: both learn it from their connections.
            pass
        finally:
            del self._connections[task]
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, Path):
            there, back = await asyncio.open_unix_connection(str(self._target))
        else:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        pumps = [asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            back.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            await self._passes.wait()
            await asyncio.sleep(self._delay_s)
            sink.write(chunk)
            with contextlib.suppress(ConnectionError):
                await sink.drain()
