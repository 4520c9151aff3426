"""The spans of a process, made with OpenTelemetry and sent to a collector over OTLP.

    edge        a server span per request; whether the trace is recorded is decided here, by the trace id alone: what a
                sender says about it must not decide what it costs us
    handlers    a span per trace and batch (handlers/tracing.py), as the edge has decided; of an unrecorded trace the
                context goes on as it came, at the price of a dictionary entry
    deliverer   a client span per attempt

Spans carry ids, names of topics and FSPs, and counts; never a payload. They wait in a bounded queue and are dropped when the
collector is away or too slow: nothing of the switch waits for it. A process that is killed loses those that it still held.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from db.deliveries import ClaimedDelivery
from domain.delivery import Callback, is_delivered
from domain.delivery import Resource as FspiopResource
from domain.identifiers import id_text
from handlers.batch import Batch, Entry
from handlers.tracing import TRACE_HEADERS, HeadersOf, TraceHeaders, entity_of
from schemas.callbacks import http_method
from stream.interface import Record

_W3C = TraceContextTextMapPropagator()
# So many spans go to the collector in one request; the queue is never smaller.
_EXPORT_SPANS_MAX = 512
_SERVER_ERROR = 500


def otlp_exporter(endpoint: str, export_wait_ms: int) -> SpanExporter:
    """Sends spans to an OpenTelemetry collector."""
    return OTLPSpanExporter(endpoint=endpoint, timeout=export_wait_ms / 1000)


class Spans:
    """Implements handlers.tracing.Tracing and bulk_api_adapter.tracing.RequestTracing."""

    def __init__(
        self,
        process: str,
        exporter: SpanExporter,
        *,
        sample_ratio: float,
        queue_spans_max: int = 2_048,
        export_wait_ms: int = 5_000,
    ) -> None:
        self._export_wait_ms = export_wait_ms
        resource = Resource.create({"service.name": f"bulk-switch-{process}"})
        # The edge and what comes after it decide differently, so there are two providers, and one way to the collector.
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=queue_spans_max,
            max_export_batch_size=min(_EXPORT_SPANS_MAX, queue_spans_max),
            export_timeout_millis=export_wait_ms,
        )
        ratio = TraceIdRatioBased(sample_ratio)
        self._edge = self._tracer(resource, ratio)
        self._inside = self._tracer(resource, ParentBased(ratio))

    def _tracer(self, resource: Resource, sampler: Sampler) -> Tracer:
        provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer("bulk_switch")

    def close(self) -> None:
        """Send what waits, within the time that an export may take."""
        self._processor.force_flush(self._export_wait_ms)
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # has no annotations

    def request(self, method: str, context: Mapping[str, str]) -> "_RequestSpan":
        span = self._edge.start_span(
            method, context=_extracted(context), kind=SpanKind.SERVER, attributes={"http.request.method": method}
        )
        return _RequestSpan(method, span)

    @contextmanager
    def batch(self, handler: str, batch: Batch) -> Iterator[HeadersOf]:
        traced = _TracedBatch(self._inside, handler, batch)
        try:
            yield traced.headers_of
        except BaseException as error:
            # The name of the trouble and no more: its text may quote what a sender wrote.
            traced.end(Status(StatusCode.ERROR, type(error).__name__))
            raise
        traced.end(None)

    def attempted(
        self, claimed: ClaimedDelivery, headers: Mapping[str, str], began_ns: int, status: int | None, error: str | None
    ) -> None:
        context = _extracted(headers)
        if not get_current_span(context).get_span_context().trace_flags.sampled:
            return
        entity = "bulk_transfer_id" if claimed.resource == FspiopResource.BULK_TRANSFERS else "transfer_id"
        attributes: dict[str, str | int] = {
            "http.request.method": http_method(Callback(claimed.callback)),
            "fspiop.destination": claimed.fsp,
            entity: str(claimed.entity_id),
            "delivery_id": claimed.delivery_id,
            "attempt": claimed.attempt,
        }
        if status is not None:
            attributes["http.response.status_code"] = status
        span = self._inside.start_span(
            f"callback {claimed.callback} {claimed.resource}",
            context=context,
            kind=SpanKind.CLIENT,
            start_time=began_ns,
            attributes=attributes,
        )
        if not is_delivered(status):
            span.set_status(Status(StatusCode.ERROR, error))
        span.end()


class _RequestSpan:
    """Implements bulk_api_adapter.tracing.RequestSpan."""

    def __init__(self, method: str, span: Span) -> None:
        self._method = method
        self._span = span

    def context(self) -> Mapping[str, str]:
        return _injected(self._span)

    def end(self, route: str, status: int) -> None:
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class _TracedBatch:
    """The spans of one attempt at a batch, one per recorded trace, and the headers that its outputs get."""

    def __init__(self, tracer: Tracer, handler: str, batch: Batch) -> None:
        self._tracer = tracer
        self._handler = handler
        # Per context that came in: the context that goes out, and its span with the count of its messages.
        self._contexts: dict[TraceHeaders, TraceHeaders] = {}
        self._spans: dict[TraceHeaders, Span] = {}
        self._messages: dict[TraceHeaders, int] = {}
        self._by_entity: dict[bytes, TraceHeaders] = {}
        for entry in batch.messages:
            self._add(entry)

    def headers_of(self, message: object) -> TraceHeaders:
        entity = entity_of(message)
        return () if entity is None else self._by_entity.get(entity, ())

    def end(self, status: Status | None) -> None:
        for came_in, span in self._spans.items():
            span.set_attribute("messaging.batch.message_count", self._messages[came_in])
            if status is not None:
                span.set_status(status)
            span.end()

    def _add(self, entry: Entry) -> None:
        if not entry.record.headers:
            return
        entity = entity_of(entry.message)
        came_in = tuple(pair for pair in entry.record.headers if pair[0] in TRACE_HEADERS)
        if entity is None or not came_in:
            return
        if came_in not in self._contexts:
            self._contexts[came_in] = self._begin(came_in, entry.record, entity, entry.message)
        if came_in in self._spans:
            self._messages[came_in] = self._messages.get(came_in, 0) + 1
        self._by_entity.setdefault(entity, self._contexts[came_in])

    def _begin(self, came_in: TraceHeaders, record: Record, entity: bytes, message: object) -> TraceHeaders:
        context = _extracted({name: value.decode("latin-1") for name, value in came_in})
        if not get_current_span(context).get_span_context().trace_flags.sampled:
            return came_in
        name = "bulk_transfer_id" if hasattr(message, "bulk_transfer_id") else "transfer_id"
        span = self._tracer.start_span(
            f"{self._handler} process",
            context=context,
            kind=SpanKind.CONSUMER,
            attributes={
                "handler": self._handler,
                "messaging.destination.name": record.partition.topic,
                "messaging.destination.partition.id": str(record.partition.number),
                "messaging.offset": record.offset,
                name: id_text(entity),
            },
        )
        self._spans[came_in] = span
        return tuple((name, value.encode()) for name, value in _injected(span).items())


def _extracted(headers: Mapping[str, str]) -> Context:
    return _W3C.extract(dict(headers), Context())


def _injected(span: Span) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier
