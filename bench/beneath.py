"""What the switch stands on during a run: its own PostgreSQL with tables for topics, a Kafka broker, or all three parts.

The services are the run's own (deploy/services), in its fresh folder, so that no other load is on them and nothing of an
earlier run is in them; they end with it. Their CPU seconds count beside the switch's.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.failure import BenchFailed
from deploy.services import KafkaService, PostgresService, SeaweedService, ServiceError
from deploy.services.service import Service

TABLE = "table"
KAFKA = "kafka"
REAL = "real"
S3 = "s3"

ServiceT = TypeVar("ServiceT", bound=Service)


@dataclass(frozen=True, slots=True)
class Beneath:
    """`settings` are the switch's, by name; `pids` are measured, too; no postmaster: the switch starts its own server."""

    stream_url: str = "table:"
    settings: Mapping[str, str] = field(default_factory=dict)
    pids: Mapping[str, int] = field(default_factory=dict)
    postmaster: int | None = None


@contextmanager
def standing_on(parts: str, folder: Path) -> Iterator[Beneath]:
    """`table`, `kafka` or `real`, until the block ends; raises BenchFailed."""
    with ExitStack() as stack:
        try:
            yield _start(parts, folder, stack)
        except ServiceError as error:
            raise BenchFailed(str(error)) from None


def _start(parts: str, folder: Path, stack: ExitStack) -> Beneath:
    if parts == TABLE:
        return Beneath()
    kafka = _started(KafkaService(folder / "kafka"), stack)
    pids = {KAFKA: kafka.node_pids()[1]}
    if parts == KAFKA:
        return Beneath(kafka.url, pids=pids)
    postgres = _started(PostgresService(folder / "postgres"), stack)
    s3 = _started(SeaweedService(folder / "s3"), stack)
    settings = {
        "database_url": postgres.url,
        "object_store_url": s3.url,
        "object_store_access_key": s3.access_key,
        "object_store_secret_key": s3.secret_key,
        # The FSPs of a run are on this machine.
        "callback_internal_addresses": "loopback",
    }
    return Beneath(kafka.url, settings, pids | {S3: s3.pids()[0]}, postgres.postmaster)


def _started(service: ServiceT, stack: ExitStack) -> ServiceT:
    stack.callback(service.stop)
    service.end_with(os.getpid())
    service.start()
    return service
