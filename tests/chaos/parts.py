"""The real parts that everything stands on: Kafka of one node or three, PostgreSQL, and an S3 server.

They outlive the worlds on them; each world has a database, a namespace of topics and a prefix in the bucket of its own.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import make_url, text

from db.engine import make_engine
from deploy.services import KafkaService, PostgresService, SeaweedService
from operations.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class Parts:
    """The services while they run."""

    kafka: KafkaService
    kafka_nodes: int
    postgres: PostgresService
    s3: SeaweedService

    def settings_of(self, name: str, **overrides: Any) -> Settings:
        """The settings of the world of this name, which has a place of its own on each part."""
        places = {
            "database_url": make_url(self.postgres.url).set(database=name).render_as_string(hide_password=False),
            "stream_url": f"{self.kafka.url}/{name}",
            "object_store_url": _within(self.s3.url, name),
            "object_store_access_key": self.s3.access_key,
            "object_store_secret_key": self.s3.secret_key,
            "kafka_replication_factor": self.kafka_nodes,
            "callback_internal_addresses": "loopback",
        }
        return read_settings(**places, **overrides)

    def make_database(self, name: str) -> None:
        engine = make_engine(self.postgres.url, application_name="chaos").execution_options(
            isolation_level="AUTOCOMMIT"
        )
        try:
            with engine.connect() as connection:
                connection.execute(text(f'CREATE DATABASE "{name}"'))
        finally:
            engine.dispose()


def _within(url: str, prefix: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{prefix}"))


@contextmanager
def running_parts(folder: Path, kafka_nodes: int = 1) -> Iterator[Parts]:
    """The services in this folder, stopped with the block; raises ServiceError."""
    with ExitStack() as stack:
        parts = Parts(
            KafkaService(folder / "kafka", nodes=kafka_nodes),
            kafka_nodes,
            PostgresService(folder / "postgres"),
            SeaweedService(folder / "s3"),
        )
        for service in (parts.postgres, parts.s3, parts.kafka):
            stack.callback(service.stop)
            service.start()
        yield parts
