"""A pipeline with three FSPs: on queues, and on real topics and a real S3 server.

Every flow is a test in both worlds. In the real one each message that is sent is produced to Kafka and read back, and each
object lies in S3 under the test's own prefix. What a handler or the edge asks the stream itself (how far a topic is read,
which partition a key is in) is asked of topics of the test's own, made when the first question comes: few tests have one.
"""

import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from schemas.topics import CATALOGUE
from stream.interface import Stream, TopicDescription
from stream.kafka import KafkaStream
from stream.table import TableStream
from tests.bulks import provision
from tests.kafka_transport import KafkaTransport
from tests.pipeline import Pipeline

QUEUES = "queues"
REAL = pytest.param("real", marks=[pytest.mark.kafka, pytest.mark.services])


class TopicsOnDemand:
    """A stream whose topics, one partition each, are made before the first question to it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._stream: KafkaStream | None = None

    def __getattr__(self, name: str) -> Any:
        if self._stream is None:
            self._stream = KafkaStream(self._bootstrap_servers, namespace=uuid.uuid4().hex, linger_ms=0)
            self._stream.create_topics(TopicDescription(t.name, 1, t.retention_ms) for t in CATALOGUE.values())
        return getattr(self._stream, name)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


@pytest.fixture(scope="session")
def kafka_transport(kafka_bootstrap: str) -> Iterator[KafkaTransport]:
    """One for all flows of a test process."""
    transport = KafkaTransport(kafka_bootstrap, f"flows-{uuid.uuid4().hex}")
    yield transport
    transport.close()


@pytest.fixture(params=[QUEUES, REAL])
def parts(request: pytest.FixtureRequest) -> str:
    """Which parts the pipeline stands on; a test that is about neither asks for one with `indirect`."""
    return str(request.param)


@pytest.fixture
def pipeline(parts: str, engine: Engine, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    provision(engine)
    if parts == QUEUES:
        stream = TableStream(engine)
        stream.create_topics(TopicDescription(t.name, t.partitions, t.retention_ms) for t in CATALOGUE.values())
        yield Pipeline(engine, request.getfixturevalue("object_store"), stream)
    else:
        topics = TopicsOnDemand(request.getfixturevalue("kafka_bootstrap"))
        transport = request.getfixturevalue("kafka_transport")
        yield Pipeline(engine, request.getfixturevalue("s3_store"), cast(Stream, topics), transport=transport)
        topics.close()
