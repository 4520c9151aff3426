"""An FSP's endpoint as bare sockets: it keeps the bytes of every request, and answers whatever a test wants."""

import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class RawRequest:
    """`head` is everything before the empty line, as it came."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.split(": ", 1) for line in self.head.decode().split("\r\n")[1:])
        return {name.lower(): value for name, value in pairs}


Respond = Callable[[RawRequest, socket.socket], None]


def answer(response: bytes) -> Respond:
    """Send these bytes to every request."""
    return lambda _, connection: connection.sendall(response)


class Receiver:
    """Listens on a port of 127.0.0.1 within its `with` block; `respond` may be changed while it runs."""

    def __init__(self, respond: Respond | None = None, port: int = 0) -> None:
        self.respond = respond or answer(OK)
        self.requests: list[RawRequest] = []
        self._arrived = threading.Condition()
        self._connections: set[socket.socket] = set()
        receiver = self

        class _Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                receiver._serve(self.request)

        class _Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._server = _Server(("127.0.0.1", port), _Connection)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            # Wakes a thread that reads, as the end of a process would; it may have ended by itself in this moment.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def wait_for(self, count: int, timeout_s: float = 60) -> list[RawRequest]:
        """The requests, once there are `count` of them."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.requests) >= count, timeout_s)
            assert arrived, f"{len(self.requests)} of {count} requests came within {timeout_s} s"
            return list(self.requests)

    def _serve(self, connection: socket.socket) -> None:
        self._connections.add(connection)
        try:
            with connection, connection.makefile("rb") as stream:
                while (request := _read(stream)) is not None:
                    with self._arrived:
                        self.requests.append(request)
                        self._arrived.notify_all()
                    self.respond(request, connection)
        except OSError:
            # The other side has gone, or this endpoint goes down: both are what tests do.
            return
        finally:
            self._connections.discard(connection)


def _read(stream: BinaryIO) -> RawRequest | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    request = RawRequest(head.removesuffix(b"\r\n\r\n"), b"")
    length = int(request.headers.get("content-length", "0"))
    body = stream.read(length)
    # A sender that was killed in the middle of a request has made none.
    return RawRequest(request.head, body) if len(body) == length else None
