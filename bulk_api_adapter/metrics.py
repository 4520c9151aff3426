"""What an HTTP app counts about itself, for Prometheus: the process, its requests by route, method and status, refusals.

Routes are the app's own templates (`/participants/{name}`), never what a client typed, so that nobody can make new series.
Each app has a registry of its own: several may live in one process.
"""

import time

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from bulk_api_adapter.asgi import AnsweredStatus, App, Receive, Scope, Send, route_of
from schemas.fspiop.errors import Refusal

# What is promised to clients is answered within 3 s; what takes longer than 10 is cut off elsewhere.
_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class HttpMetrics:
    """Counts what an app answers; `install` it before the app serves."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests", "Requests that were answered.", labels, registry=self._registry)
        self._refusals = Counter(
            "bulk_switch_edge_refusals",
            "Requests that were refused, by FSPIOP code; for 503, what there was no room in or what was away.",
            ("code", "reason"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def install(self, app: FastAPI) -> None:
        """Count every request of the app, and answer GET /metrics."""
        app.add_middleware(_CountingMiddleware, metrics=self)
        app.add_api_route("/metrics", self._answer, methods=["GET"], response_model=None)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = route_of(scope)
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def count_refusal(self, refusal: Refusal) -> None:
        self._refusals.labels(refusal.error.code, refusal.reason).inc()

    async def _answer(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class _CountingMiddleware:
    def __init__(self, app: App, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = AnsweredStatus(send)
        try:
            await self._app(scope, receive, status.send)
        finally:
            self._metrics.count(scope, status.code, time.perf_counter() - began)
