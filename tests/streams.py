"""Fixtures that give a stream to any test: the table stream, and a real Kafka broker.

The broker is started from its own jars (deploy/services) once per test run, shared by all workers of it, and stopped by the
last one; BULK_SWITCH_TEST_KAFKA=host:port uses one that runs already, BULK_SWITCH_TEST_CONTAINERS=1 starts a container. Each
test has a namespace of its own on it. Without Java the tests marked `kafka` are skipped with one line; in CI, where that
must not go unnoticed, they fail.
"""

import os
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from deploy.services import KafkaService
from stream.interface import Stream
from stream.opening import TABLE_URL, open_stream
from tests.containers import are_wanted, kafka_container
from tests.shared_service import shared_service


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """host:port of a Kafka broker."""
    given = os.environ.get("BULK_SWITCH_TEST_KAFKA")
    if given:
        yield given
    elif are_wanted():
        with kafka_container() as bootstrap:
            yield bootstrap
    else:
        with shared_service(KafkaService, "kafka") as service:
            yield service.bootstrap


@pytest.fixture
def kafka_url(kafka_bootstrap: str) -> str:
    """The URL of a Kafka stream whose topics and groups are this test's own."""
    return f"kafka://{kafka_bootstrap}/{uuid.uuid4().hex}"


@pytest.fixture(params=["table", pytest.param("kafka", marks=pytest.mark.kafka)])
def stream_url(request: pytest.FixtureRequest) -> str:
    """The URL of each stream there is, without any topics."""
    return TABLE_URL if request.param == "table" else str(request.getfixturevalue("kafka_url"))


@pytest.fixture
def stream(stream_url: str, engine: Engine) -> Iterator[Stream]:
    """Each stream there is, without any topics."""
    stream = open_stream(stream_url, engine)
    yield stream
    stream.close()
