"""What operators see of the processes: their log lines, their metrics, their traces."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from operations.settings.types import Count, Milliseconds

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class WatchingSettings(BaseModel):
    """Logs, metrics, traces."""

    log_level: LogLevel = Field("INFO", description="the least severe lines that are written")
    # A line for people, or a JSON object per line with the ids and places as fields of their own.
    log_format: Literal["text", "json"] = "text"

    # How often `bulk-switch exporter` reads the database and the stream: not more often than Prometheus asks.
    collection_interval_ms: Milliseconds = 10_000
    # What one statement of it may take; a database that is slow must not be kept busy by those who watch it.
    collection_wait_ms: Milliseconds = 5_000
    # What could not be read again for so long is no longer told: an old figure looks like a healthy one.
    collection_stale_ms: Milliseconds = 30_000

    # W3C trace context from a request to its callbacks; `otlp` sends spans to a collector over HTTP.
    tracing: Literal["off", "otlp"] = "off"
    traces_endpoint: str = "http://127.0.0.1:4318/v1/traces"
    # The share of requests that are traced, by trace id; what a sender says about sampling does not decide it.
    traces_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    # Spans that wait for the collector; while it is away, more are dropped.
    traces_queue_spans_max: Count = 2_048
    traces_export_wait_ms: Milliseconds = 5_000

    @field_validator("traces_endpoint")
    @classmethod
    def _http_endpoint(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value
