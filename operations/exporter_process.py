"""`bulk-switch exporter`: one process that tells Prometheus what only the database and the stream know.

A process and a port of its own, and not the admin app's: its figures are positions and limits of participants, so it
listens on loopback until told otherwise, and asks nobody for a token that a Prometheus would have to keep.
"""

import signal
import threading

from operations.collection import Collection, CollectionLimits, registry_of
from operations.health_port import health_port, process_registry
from operations.opening import make_object_store, opened_engine, opened_stream
from operations.settings import Settings

# A thread reads the database, and another one the progress rows beside the stream, which may itself be in the database.
_CONNECTIONS = 4


def run(settings: Settings, host: str, port: int) -> None:
    """Tell until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        opened_engine(settings, "exporter", pool_size=_CONNECTIONS) as engine,
        opened_stream(settings, engine) as stream,
    ):
        limits = CollectionLimits(
            interval_ms=settings.collection_interval_ms,
            wait_ms=settings.collection_wait_ms,
            stale_ms=settings.collection_stale_ms,
        )
        collection = Collection(engine, stream, make_object_store(settings), limits)
        # It is well as long as it answers; what it cannot read is told by its metrics, and a restart would not mend it.
        with health_port(host, port, dict, [process_registry(), registry_of(collection)]), collection.running():
            stop.wait()
