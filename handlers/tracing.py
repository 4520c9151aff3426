"""How the trace of a request survives the pipeline; nothing here knows what makes spans, and nothing happens without it.

A trace's context (W3C traceparent and tracestate) rides in the headers of every record. A record is of one trace: outputs
of different traces share no frame while tracing is on (`handlers.journal.frames`). Handlers know nothing of it: within a
batch the context of an output is that of the input about the same bulk or single transfer.

    input with a context      a span per trace and batch, from its begin to its commit; outputs carry that span's context
    input without one         (the clock) its outputs carry none; one that is not sampled is carried on as it came
    a callback is written     the context goes into its row's headers, so that every attempt sends the same bytes;
                              the last word on a bulk takes the trace of its POST, which stands in the forward's row
    an attempt to deliver     a span beside whatever the FSP does with the request, under the context that was sent

`Tracing` is made by the process (operations/tracing.py) and off by default; then a batch costs one call that does nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

from db.deliveries import ClaimedDelivery
from handlers.batch import Batch

TraceHeaders = tuple[tuple[str, bytes], ...]
# The record headers of an output, () for one that belongs to no trace.
HeadersOf = Callable[[Any], TraceHeaders]
TRACE_HEADERS = ("traceparent", "tracestate")

_headers_of: ContextVar[HeadersOf | None] = ContextVar("headers_of", default=None)


class Tracing(Protocol):
    """Makes spans."""

    def batch(self, handler: str, batch: Batch) -> AbstractContextManager[HeadersOf]:
        """Spans around one attempt at a batch; what leaves the block with an exception has failed."""

    def attempted(
        self, claimed: ClaimedDelivery, headers: Mapping[str, str], began_ns: int, status: int | None, error: str | None
    ) -> None:
        """A span of an attempt that has ended: what it sent, since when (time.time_ns), and what came of it."""


def entity_of(message: Any) -> bytes | None:
    """The bulkTransferId or transferId that a message is about; None for a tick and a dead letter."""
    found: bytes | None = getattr(message, "bulk_transfer_id", None) or getattr(message, "transfer_id", None)
    return found


def headers_of_outputs() -> HeadersOf | None:
    """What gives the outputs of this batch their headers; None when nothing is traced."""
    return _headers_of.get()


def traced_batch(tracing: Tracing | None, handler: str, batch: Batch) -> AbstractContextManager[None]:
    """Within the block `headers_of_outputs` answers for this batch."""
    return nullcontext() if tracing is None else _traced(tracing, handler, batch)


@contextmanager
def _traced(tracing: Tracing, handler: str, batch: Batch) -> Iterator[None]:
    with tracing.batch(handler, batch) as headers_of:
        token = _headers_of.set(headers_of)
        try:
            yield
        finally:
            _headers_of.reset(token)


def continued(first: Mapping[str, str] | None, now: Mapping[str, str]) -> dict[str, str]:
    """The context of the first of two, unless the second one is of the same trace and therefore later in it."""
    if first is None or _trace_id(first) == _trace_id(now):
        return dict(now or first or {})
    return dict(first)


def _trace_id(context: Mapping[str, str]) -> str:
    """The second part of a traceparent, which is version-trace-parent-flags."""
    return context.get("traceparent", "--").split("-")[1]
