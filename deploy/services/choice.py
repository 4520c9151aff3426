"""The services that `scripts/services` knows by name, where they live, and what the switch is told about those that run.

Everything stands under one folder: .services/data in the repository, or BULK_SWITCH_SERVICES_DATA, a folder per service.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.services.downloads import cache_folder
from deploy.services.errors import ServiceError
from deploy.services.kafka import KafkaService
from deploy.services.postgres import PostgresService
from deploy.services.seaweed import SeaweedService
from deploy.services.service import Service

DEFAULT = ("kafka", "postgres", "s3")
# Three of them share one machine.
_CLUSTER_HEAP_MB = 384
_MAKERS: Mapping[str, Callable[[Path], Service]] = {
    "kafka": KafkaService,
    "kafka-3": lambda folder: KafkaService(folder, 3, heap_mb=_CLUSTER_HEAP_MB),
    "postgres": PostgresService,
    "s3": SeaweedService,
}
NAMES = tuple(_MAKERS)


def data_folder() -> Path:
    given = os.environ.get("BULK_SWITCH_SERVICES_DATA")
    return Path(given).absolute() if given else cache_folder() / "data"


def make_service(name: str, folder: Path) -> Service:
    """The service of this name, under this folder; raises ServiceError."""
    try:
        return _MAKERS[name](folder / name)
    except KeyError:
        raise ServiceError(f"no service is called {name}; there are {', '.join(NAMES)}") from None


def running_services(folder: Path) -> dict[str, Service]:
    """Those whose processes are there, by name."""
    services = {name: make_service(name, folder) for name in NAMES}
    return {name: service for name, service in services.items() if service.is_running()}


def switch_environment(services: Mapping[str, Service]) -> dict[str, str]:
    """The switch's settings for these services, as environment variables."""
    variables: dict[str, str] = {}
    for service in services.values():
        match service:
            case KafkaService() if "BULK_SWITCH_STREAM_URL" not in variables:
                variables["BULK_SWITCH_STREAM_URL"] = service.url
                variables["BULK_SWITCH_KAFKA_REPLICATION_FACTOR"] = str(service.replication_factor)
            case PostgresService():
                # Apart, so that another database of the same server can be named without it.
                variables["BULK_SWITCH_DATABASE_URL"] = service.url.replace(f":{service.password}@", "@")
                variables["BULK_SWITCH_DATABASE_PASSWORD"] = service.password
            case SeaweedService():
                variables["BULK_SWITCH_OBJECT_STORE_URL"] = service.url
                variables["BULK_SWITCH_OBJECT_STORE_ACCESS_KEY"] = service.access_key
                variables["BULK_SWITCH_OBJECT_STORE_SECRET_KEY"] = service.secret_key
            case _:
                # A second cluster; the first one is meant.
                pass
    return variables


def tests_environment(services: Mapping[str, Service]) -> dict[str, str]:
    """Where the tests find these services: names that are no settings of the switch, whose own tests set those."""
    variables: dict[str, str] = {}
    for service in services.values():
        match service:
            case KafkaService() if "BULK_SWITCH_TEST_KAFKA" not in variables:
                variables["BULK_SWITCH_TEST_KAFKA"] = service.bootstrap
            case PostgresService():
                variables["BULK_SWITCH_TEST_POSTGRES"] = service.url
            case SeaweedService():
                variables["BULK_SWITCH_TEST_S3_URL"] = service.url
                variables["BULK_SWITCH_TEST_S3_ACCESS_KEY"] = service.access_key
                variables["BULK_SWITCH_TEST_S3_SECRET_KEY"] = service.secret_key
            case _:
                pass
    return variables
