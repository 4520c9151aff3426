"""Tracing of a process, where it is on: OpenTelemetry is imported then, and only then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from operations.settings import Settings

if TYPE_CHECKING:
    from operations.spans import Spans


@contextmanager
def opened_tracing(settings: Settings, process: str) -> Iterator["Spans | None"]:
    """What makes the spans of this process, None where tracing is off; what it holds is sent at the end of the block."""
    if settings.tracing == "off":
        yield None
        return
    from operations.spans import Spans, otlp_exporter

    exporter = otlp_exporter(settings.traces_endpoint, settings.traces_export_wait_ms)
    spans = Spans(
        process,
        exporter,
        sample_ratio=settings.traces_sample_ratio,
        queue_spans_max=settings.traces_queue_spans_max,
        export_wait_ms=settings.traces_export_wait_ms,
    )
    try:
        yield spans
    finally:
        spans.close()
