"""The first hop of a trace: each request to an FSPIOP resource gets a span, and the request goes on under its context.

The middleware puts the span's own traceparent in the place of the sender's, so that all that comes after it (the kept
request, the record, a single transfer that is passed on) carries it without knowing. A request with no context, or with
one that is not valid, begins a trace; one that says `traceparent` twice is left as it is, to be refused with the other
wrong headers (`schemas.fspiop.headers`).
"""

from collections.abc import Mapping
from typing import Protocol

from bulk_api_adapter.asgi import AnsweredStatus, App, Receive, Scope, Send, route_of

_RESOURCES = ("/bulkTransfers", "/transfers")
_TRACE_HEADERS = (b"traceparent", b"tracestate")


class RequestSpan(Protocol):
    """The span of one request."""

    def context(self) -> Mapping[str, str]:
        """traceparent, and tracestate where there is one."""

    def end(self, route: str, status: int) -> None:
        """The request was answered."""


class RequestTracing(Protocol):
    """Makes the spans."""

    def request(self, method: str, context: Mapping[str, str]) -> RequestSpan:
        """A span under the sender's context, which may be empty or invalid."""


class TracingMiddleware:
    """Installed only where tracing is on."""

    def __init__(self, app: App, tracing: RequestTracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_RESOURCES):
            await self._app(scope, receive, send)
            return
        given = [(name, value) for name, value in scope["headers"] if name in _TRACE_HEADERS]
        if [name for name, _ in given].count(b"traceparent") > 1:
            await self._app(scope, receive, send)
            return
        span = self._tracing.request(scope["method"], {name.decode(): value.decode("latin-1") for name, value in given})
        others = [pair for pair in scope["headers"] if pair[0] not in _TRACE_HEADERS]
        scope["headers"] = [*others, *((name.encode(), value.encode()) for name, value in span.context().items())]
        status = AnsweredStatus(send)
        try:
            await self._app(scope, receive, status.send)
        finally:
            span.end(route_of(scope), status.code)
