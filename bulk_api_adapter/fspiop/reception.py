"""The way that every request takes before its resource looks at it, in the order of `app`.

A request has a place from here to its answer: each of them may hold a body in memory, so there are no more of them than
`requests_in_flight_max`, and their bodies together are not larger than `request_bytes_in_flight_max`, counted as they
arrive: a sender who says that much is to come, and sends nothing, takes nothing from the others. Of both some is for PUTs
alone. What a payee answers frees funds and places, so it gets in where new work and questions do not.

What a sender has signed is judged last, when the request is known to be well formed, and before anything is kept, published
or counted.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from bulk_api_adapter.fspiop.authority import Authority
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.retry_after import RetryAfter
from domain.fspiop_errors import ErrorCode
from domain.identifiers import id_bytes
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders, check_headers
from schemas.fspiop.types import is_correlation_id

Body = TypeVar("Body")


class Errand(Enum):
    """What a request is for."""

    NEW_WORK = "POST"
    QUESTION = "GET"
    ANSWER = "PUT"


class Place:
    """A request's place, and the bytes of its body that lie in memory."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.bytes = 0


@dataclass(frozen=True, slots=True)
class Received(Generic[Body]):
    """A request that is well formed and from its source; `path_id` is empty where the path has none."""

    path_id: bytes
    headers: RequestHeaders
    received_at_ms: int
    raw: bytes
    body: Body


class Reception:
    """Reads requests; made once per app."""

    def __init__(self, limits: EdgeLimits, clock_ms: Callable[[], int], authority: Authority | None) -> None:
        self._limits = limits
        self._clock_ms = clock_ms
        self._authority = authority
        self._retry_after = RetryAfter(limits.retry_after_s_max)
        self._requests_in_flight = 0
        self._bytes_in_flight = 0

    @contextmanager
    def place(self, errand: Errand) -> Iterator[Place]:
        """Hold a place from the beginning of a request to its answer; raises Refusal."""
        limits = self._limits
        kept_back = 0 if errand is Errand.ANSWER else limits.answers_in_flight_min
        if self._requests_in_flight >= limits.requests_in_flight_max - kept_back:
            raise self._full(f"places for {errand.value}", "too many requests at once, send it again")
        self._retry_after.admitted(f"places for {errand.value}")
        self._requests_in_flight += 1
        place = Place(errand)
        try:
            yield place
        finally:
            self._requests_in_flight -= 1
            self._bytes_in_flight -= place.bytes

    async def receive(
        self, place: Place, request: Request, resource: str, parse: Callable[[bytes], Body]
    ) -> Received[Body]:
        """Check a request and its body; raises Refusal."""
        headers = self._headers(request, resource)
        path_id = _path_id(request)
        raw = await self._body(place, request)
        self._retry_after.admitted(f"bytes for {place.errand.value}")
        # The request is received when all of it is here: its sender's promptness is judged by this moment.
        received_at_ms = self._clock_ms()
        body = parse(raw)
        await self._require_authority(request, headers, raw)
        return Received(path_id, headers, received_at_ms, raw, body)

    async def receive_without_body(self, request: Request, resource: str) -> Received[None]:
        """Check a request whose body, if it has one, means nothing; raises Refusal."""
        headers = self._headers(request, resource)
        path_id = _path_id(request)
        await self._require_authority(request, headers, b"")
        return Received(path_id, headers, self._clock_ms(), b"", None)

    def _headers(self, request: Request, resource: str) -> RequestHeaders:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        return check_headers(
            request.method,
            headers,
            header_bytes_max=self._limits.header_bytes_max,
            body_bytes_max=self._limits.body_bytes_max,
            resource=resource,
        )

    async def _body(self, place: Place, request: Request) -> bytes:
        """The raw body, read no further than its limit; raises Refusal."""
        body = bytearray()
        limits = self._limits
        try:
            async with asyncio.timeout(limits.body_wait_ms / 1000):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limits.body_bytes_max:
                        raise Refusal(
                            ErrorCode.TOO_LARGE_PAYLOAD, f"the body is larger than {limits.body_bytes_max} bytes"
                        )
                    self._hold(place, len(chunk))
        except TimeoutError as error:
            raise Refusal(
                ErrorCode.CLIENT_ERROR, f"the body did not end within {limits.body_wait_ms} ms", close=True
            ) from error
        except ClientDisconnect as error:
            # Nobody reads this answer; it only ends the request.
            raise Refusal(ErrorCode.CLIENT_ERROR, "the connection ended before the body did", close=True) from error
        return bytes(body)

    def _hold(self, place: Place, more_bytes: int) -> None:
        """Count a piece of a body; raises Refusal when it is one too many."""
        limits = self._limits
        kept_back = 0 if place.errand is Errand.ANSWER else limits.answer_bytes_in_flight_min
        if self._bytes_in_flight + more_bytes > limits.request_bytes_in_flight_max - kept_back:
            raise self._full(f"bytes for {place.errand.value}", "too many large requests at once, send it again")
        place.bytes += more_bytes
        self._bytes_in_flight += more_bytes

    def _full(self, cause: str, text: str) -> Refusal:
        return Refusal(
            ErrorCode.SERVICE_UNAVAILABLE,
            text,
            retry_after_s=self._retry_after.refused(cause),
            reason=cause.partition(" ")[0],
        )

    async def _require_authority(self, request: Request, headers: RequestHeaders, raw: bytes) -> None:
        if self._authority is not None:
            await self._authority.check(request.method, request.scope["path"], headers, raw)


def _path_id(request: Request) -> bytes:
    text: str | None = request.path_params.get("ID")
    if text is None:
        return b""
    if not is_correlation_id(text):
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "ID in the path is not a CorrelationId")
    return id_bytes(text)
