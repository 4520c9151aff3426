"""`bulk-switch handler NAME…`: a process that runs one handler or several, and says on request whether it does its work.

GET /health answers 200 when every loop turns and owns partitions (or is a spare), else 503; the body says what is wrong
with which handler. It is what a liveness or readiness probe asks, and what `bulk-switch up` waits for. GET /metrics, on
the same port, tells Prometheus what the process has done (handlers/metrics.py).
"""

from collections.abc import Sequence

from db.reference_data import HUB_NAME
from domain.bulk_fulfil import FulfilRules
from domain.bulk_prepare import BulkRules
from handlers.dead_letters import DeadLetterRules
from handlers.host import CONNECTIONS_PER_HANDLER, HANDLER_NAMES, HandlerHost, HandlerWorld, run_handlers
from handlers.loop import LoopLimits
from handlers.metrics import REGISTRY
from operations.health_port import LOOPBACK, Trouble, process_registry
from operations.health_port import health_port as answered_port
from operations.opening import make_object_store, opened_engine, opened_stream
from operations.settings import Settings, SettingsError
from operations.tracing import opened_tracing


def run(names: Sequence[str], settings: Settings, *, health_host: str = LOOPBACK, health_port: int = 0) -> None:
    """Run the handlers until SIGTERM or SIGINT; raises SettingsError for a name that is none, Crash when one fails."""
    unknown = [name for name in names if name not in HANDLER_NAMES]
    if unknown:
        raise SettingsError(f"no handler {', '.join(unknown)}; there are {', '.join(HANDLER_NAMES)}")
    connections = CONNECTIONS_PER_HANDLER * len(names)
    health = _Health()
    with (
        opened_engine(settings, f"handler {' '.join(names)}", pool_size=connections) as engine,
        opened_stream(settings, engine) as stream,
        opened_tracing(settings, "handler") as tracing,
        answered_port(health_host, health_port, health.trouble, [process_registry(), REGISTRY], health.spares),
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
            tracing=tracing,
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

    def trouble(self) -> Trouble:
        return {"process": "is starting"} if self._host is None else dict(self._host.readiness().trouble)

    def spares(self) -> Sequence[str]:
        """The handlers that are ready without a partition, because there are more processes than partitions."""
        return () if self._host is None else self._host.readiness().spares
