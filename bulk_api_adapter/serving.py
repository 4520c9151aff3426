"""Runs an app on a socket: uvicorn with httptools and uvloop, and limits on what a connection may do before an app sees it.

httptools reads headers of any length and trailers without end, and uvicorn waits for them as long as it takes; so

    head_wait_ms      a connection's first request, and each head that has begun, is complete within this time
    rest_wait_ms      what is left of a request that was answered early (too large, refused) arrives within this time
    head_bytes_max    no more bytes than this arrive without the head, or a piece of the body, being complete
    connections_max   no more connections at once

Past the first two the connection is closed, past the others it is answered once more (3104 and 2003) and closed. The
app's own limit on its headers is lower than `head_bytes_max` and exact. Trailers are read and dropped: behind a body they
would be headers that nobody checked.

A client that offers to upgrade (Java's does, to HTTP/2) is served in HTTP/1.1, as if it had not: httptools stops reading
at such a head, so the body is read by a second parser.

On SIGTERM or SIGINT no connection is accepted any more, requests that run are answered, the app's lifespan ends.
"""

import asyncio
import signal
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import ERROR_CONTENT_TYPE, Refusal
from schemas.fspiop.headers import HEADER_BYTES_MAX

# A request line of 16 KiB has room above the headers.
_REQUEST_LINE_BYTES: Final = 16_384
_SERVICE_UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE
_FRAMING_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may do; see the module."""

    head_bytes_max: int = HEADER_BYTES_MAX + _REQUEST_LINE_BYTES
    head_wait_ms: int = 10_000
    rest_wait_ms: int = 5_000
    connections_max: int = 1_000
    # Longer than the idle time of usual client pools, so that it is the client who closes.
    keep_alive_wait_ms: int = 75_000
    # How long running requests may take to end after SIGTERM.
    stop_wait_ms: int = 10_000


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's connection with the limits above; a subclass with its limits is made per server."""

    limits = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_is_open = False
        self._message_is_open = False
        self._progressed = False
        self._bytes_without_progress = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._is_replay = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself does
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            self._answer_and_close(Refusal(ErrorCode.SERVICE_UNAVAILABLE, "too many connections"))
        else:
            self._close_unless_done_within(self.limits.head_wait_ms)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._progressed = False
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("this is not HTTP/1.1")
            return
        # The bytes of a read in which something became complete are not counted: most of them may belong to that.
        self._bytes_without_progress = 0 if self._progressed else self._bytes_without_progress + len(data)
        if self._bytes_without_progress > self.limits.head_bytes_max and not self.transport.is_closing():
            limit = self.limits.head_bytes_max
            self._answer_and_close(Refusal(ErrorCode.TOO_LARGE_PAYLOAD, f"the headers are larger than {limit} bytes"))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser has called the message complete, before its body. The request's task has not begun to run.
            self._message_is_open = True
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self.parser = httptools.HttpRequestParser(self)
            self._is_replay = True
            self.parser.feed_data(self._head_without_upgrade())
            self._is_replay = False
            self._feed(data[upgrade.args[0] :])

    def _head_without_upgrade(self) -> bytes:
        """The part of the current head that says how its body is framed."""
        lines = [b"%s / HTTP/1.1" % self.scope["method"].encode()]
        lines += [b"%s: %s" % header for header in self.headers if header[0] in _FRAMING_HEADERS]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        if self._is_replay:
            return
        self._head_is_open = self._message_is_open = self._progressed = True
        self._close_unless_done_within(self.limits.head_wait_ms)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_replay:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_is_open:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_replay:
            return
        self._head_is_open = False
        self._progressed = True
        self._cancel_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_is_open = False
        self._progressed = True
        self._cancel_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # With pipelining the open message may be a later one, whose answer is still to come.
        if self._message_is_open and self.cycle.response_complete:
            self._close_unless_done_within(self.limits.rest_wait_ms)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Bytes that are not HTTP; uvicorn's own text is not JSON."""
        self._answer_and_close(Refusal(ErrorCode.MALFORMED_SYNTAX, msg))

    def _answer_and_close(self, refusal: Refusal) -> None:
        """Answer if no request is being worked on: its sender would take this for the answer to that one.

        A request whose body was still arriving is not worked on, unless its answer has begun.
        """
        cycle = self.cycle
        body_is_open = self._message_is_open and not self._head_is_open and not self.pipeline
        if cycle is None or cycle.response_complete or (body_is_open and not cycle.response_started):
            self.transport.write(_raw_answer(refusal))
        self.transport.close()

    def _close_unless_done_within(self, wait_ms: int) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(wait_ms / 1000, self.transport.close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def make_server(
    app: FastAPI, host: str, port: int, *, log_level: str = "info", limits: ConnectionLimits | None = None
) -> uvicorn.Server:
    """A server that has not started yet: `run()` it in this thread, or await `serve()`."""
    limits = limits or ConnectionLimits()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("Protocol", (BoundedHttpProtocol,), {"limits": limits}),
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_level=log_level,
        # Its lines go where all others of the process go, and in their form.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.keep_alive_wait_ms // 1000,
        timeout_graceful_shutdown=limits.stop_wait_ms // 1000,
    )
    return uvicorn.Server(config)


def serve(
    app: FastAPI, host: str, port: int, *, log_level: str = "info", limits: ConnectionLimits | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, from the main thread.

    Returns when what was running is answered and the app's lifespan has ended.
    """
    server = make_server(app, host, port, log_level=log_level, limits=limits)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn takes the signals while it serves and raises them again afterwards, when the default would end the process
    # as if it had been killed.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raw_answer(refusal: Refusal) -> bytes:
    body = refusal.body()
    phrase = HTTPStatus(refusal.http_status).phrase
    retry_after = f"retry-after: {refusal.retry_after_s}\r\n" if refusal.http_status == _SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {refusal.http_status} {phrase}\r\ncontent-type: {ERROR_CONTENT_TYPE}\r\n"
        f"content-length: {len(body)}\r\n{retry_after}connection: close\r\n\r\n"
    )
    return head.encode() + body
