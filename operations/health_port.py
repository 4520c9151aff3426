"""The small port of a process that is no HTTP app: GET /health for probes, GET /metrics for Prometheus.

It answers on threads of its own, so that a busy loop does not look dead; what it tells must not wait for anything.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

LOOPBACK = "127.0.0.1"

# What is wrong, part by part; nothing when all is well.
Trouble = dict[str, str]


def process_registry() -> CollectorRegistry:
    """What every process says about itself: CPU, memory, open files, since when it runs."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


@contextmanager
def health_port(
    host: str,
    port: int,
    trouble: Callable[[], Trouble],
    registries: Sequence[CollectorRegistry],
    spares: Callable[[], Sequence[str]] = tuple,
) -> Iterator[None]:
    """Answers within the block; nowhere when the port is 0."""
    if not port:
        yield
        return

    class Answering(BaseHTTPRequestHandler):
        # A probe that connects and says nothing must not keep a thread.
        timeout = 5

        def do_GET(self) -> None:  # the name that http.server looks for
            if self.path == "/health":
                wrong = trouble()
                status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
                answer = {"status": "DOWN" if wrong else "OK", "trouble": wrong, "spares": list(spares())}
                body = orjson.dumps(answer)
                self._answer(status, "application/json", body)
            elif self.path == "/metrics":
                text = b"".join(generate_latest(registry) for registry in registries)
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, text)
            else:
                self._answer(HTTPStatus.NOT_FOUND, "application/json", b"{}")

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # http.server's own name
            """Probes come every few seconds; they are no news."""

    with ThreadingHTTPServer((host, port), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
