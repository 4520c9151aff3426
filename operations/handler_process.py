"""`bulk-switch handler NAME…`: a process that runs one handler or several, and says on request whether it does its work.

GET /health answers 200 when every loop turns and owns partitions (or is a spare), else 503; the body says what is wrong
with which handler. It is what a liveness or readiness probe asks, and what `bulk-switch up` waits for.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from db.reference_data import HUB_NAME
from domain.bulk_fulfil import FulfilRules
from domain.bulk_prepare import BulkRules
from handlers.dead_letters import DeadLetterRules
from handlers.host import CONNECTIONS_PER_HANDLER, HANDLER_NAMES, HandlerHost, HandlerWorld, run_handlers
from handlers.loop import LoopLimits
from operations.opening import make_object_store, opened_engine, opened_stream
from operations.settings import Settings, SettingsError

_HEALTH_HOST = "127.0.0.1"


def run(names: Sequence[str], settings: Settings, *, health_host: str = _HEALTH_HOST, health_port: int = 0) -> None:
    """Run the handlers until SIGTERM or SIGINT; raises SettingsError for a name that is none, Crash when one fails."""
    unknown = [name for name in names if name not in HANDLER_NAMES]
    if unknown:
        raise SettingsError(f"no handler {', '.join(unknown)}; there are {', '.join(HANDLER_NAMES)}")
    connections = CONNECTIONS_PER_HANDLER * len(names)
    with (
        opened_engine(settings, f"handler {' '.join(names)}", pool_size=connections) as engine,
        opened_stream(settings, engine) as stream,
        _health(health_host, health_port) as health,
    ):
        world = HandlerWorld(
            engine=engine,
            stream=stream,
            object_store=make_object_store(settings),
            hub_name=HUB_NAME,
            bulk_rules=BulkRules(
                items_max=settings.items_per_bulk_max,
                expiration_horizon_ms=settings.expiration_horizon_ms,
                ascending_amount_order=settings.ascending_amount_order,
            ),
            fulfil_rules=FulfilRules(
                completed_timestamp_ahead_ms=settings.completed_timestamp_ahead_ms,
                completed_timestamp_age_ms=settings.completed_timestamp_age_ms,
            ),
            loop_limits=loop_limits(settings),
            tick_ms=settings.tick_ms,
        )
        run_handlers(names, world, on_start=health.watch)


def loop_limits(settings: Settings) -> LoopLimits:
    return LoopLimits(
        batch_items=settings.batch_items,
        batch_wait_ms=settings.batch_wait_ms,
        batch_output_bytes_max=settings.batch_output_bytes_max,
        acks_wait_ms=settings.acks_wait_ms,
        dead_letters=DeadLetterRules(
            in_a_row_max=settings.dead_letters_in_a_row_max, ratio_max=settings.dead_letter_ratio_max
        ),
    )


class _Health:
    """What GET /health answers from."""

    def __init__(self) -> None:
        self._host: HandlerHost | None = None

    def watch(self, host: HandlerHost) -> None:
        self._host = host

    def answer(self) -> tuple[HTTPStatus, bytes]:
        trouble = {"process": "is starting"} if self._host is None else dict(self._host.readiness().trouble)
        status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
        return status, orjson.dumps({"status": "DOWN" if trouble else "OK", "trouble": trouble})


@contextmanager
def _health(host: str, port: int) -> Iterator[_Health]:
    """Answers GET /health on a thread of its own within the block; nowhere when the port is 0."""
    health = _Health()
    if not port:
        yield health
        return

    class Answering(BaseHTTPRequestHandler):
        # A probe that connects and says nothing must not keep a thread.
        timeout = 5

        def do_GET(self) -> None:  # the name that http.server looks for
            known = self.path == "/health"
            status, body = health.answer() if known else (HTTPStatus.NOT_FOUND, b"{}")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # http.server's own name
            """Probes come every few seconds; they are no news."""

    with ThreadingHTTPServer((host, port), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        try:
            yield health
        finally:
            server.shutdown()
