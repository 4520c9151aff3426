"""The stream on a broker that speaks TLS, asks for a certificate and a password: it works, or says what is wrong."""

import logging
import time
import uuid
from dataclasses import replace

import pytest

from deploy.services import KafkaService
from operations.opening import kafka_security
from operations.settings import read_settings
from stream.interface import NewRecord, Partition, Record, StreamUnavailable, TopicDescription
from stream.kafka import KafkaStream
from stream.kafka_security import KafkaSecurity
from tests.security.conftest import PLAIN_PASSWORD, PLAIN_USER, Certificates
from tests.security.kafka_users import SCRAM_USER

pytestmark = [pytest.mark.kafka, pytest.mark.services]

_WAIT_S = 60


@pytest.fixture
def security(certificates: Certificates) -> KafkaSecurity:
    """What the switch makes of the settings that fit."""
    return kafka_security(
        read_settings(
            kafka_security_protocol="SASL_SSL",
            kafka_ca_file=str(certificates.server.ca_file),
            kafka_certificate_file=str(certificates.client_certificate_file),
            kafka_key_file=str(certificates.client_key_file),
            kafka_sasl_username=SCRAM_USER.name,
            kafka_sasl_password=SCRAM_USER.password,
        )
    )


def stream_on(service: KafkaService, security: KafkaSecurity, **more: int) -> KafkaStream:
    return KafkaStream(service.bootstrap, namespace=uuid.uuid4().hex, security=security, **more)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"])
def test_everything_that_is_done_on_kafka_is_done_over_tls_and_sasl(
    secure_kafka: KafkaService, security: KafkaSecurity, mechanism: str
) -> None:
    """Topics, producing, looking at records, and reading as a member of a group: four clients of their own each."""
    if mechanism == "PLAIN":
        security = replace(security, sasl_username=PLAIN_USER, sasl_password=PLAIN_PASSWORD)
    stream = stream_on(secure_kafka, replace(security, sasl_mechanism=mechanism))
    stream.create_topics([TopicDescription("payments", 2, 3_600_000)])
    producer = stream.producer()
    producer.produce([NewRecord("payments", key, b"value") for key in (b"a", b"b", b"c", b"d")])
    producer.wait_for_acks(30_000)
    producer.close()
    assert sum(stream.end_offsets("payments").values()) == 4

    consumer = stream.consumer(
        "readers", "payments", 0, lambda partitions: dict.fromkeys(partitions, 0), lambda partitions, lost: None
    )
    found: list[Record] = []
    deadline = time.monotonic() + _WAIT_S
    while len(found) < 4 and time.monotonic() < deadline:
        found += consumer.consume(100, 200)
    assert sorted(record.key for record in found) == [b"a", b"b", b"c", b"d"]
    consumer.commit({Partition("payments", 0): 1})
    consumer.close()
    stream.close()


def told_by(stream: KafkaStream, told: str) -> str:
    """What the stream says is wrong: a broker whose first handshake this is may not have come to the reason in time."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        with pytest.raises(StreamUnavailable) as raised:
            stream.partitions("payments")
        if told in str(raised.value) or time.monotonic() > deadline:
            return str(raised.value)


def test_what_is_wrong_is_told_and_the_password_is_not(
    secure_kafka: KafkaService,
    security: KafkaSecurity,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    without_certificate = replace(security, certificate_file="", key_file="")
    mistakes = {
        "invalid credentials with SASL mechanism SCRAM-SHA-512": replace(security, sasl_password="wrong-mark"),
        "invalid credentials with SASL mechanism SCRAM-SHA-256": replace(
            security, sasl_username="nobody", sasl_mechanism="SCRAM-SHA-256"
        ),
        "broker certificate could not be verified": replace(security, ca_file=str(certificates.other_ca_file)),
        # An authority that this machine does not know.
        "certificate verify failed": replace(security, ca_file=""),
        "alert bad certificate": without_certificate,
        "does the security protocol fit their listener?": KafkaSecurity(),
    }
    for told, mistake in mistakes.items():
        stream = stream_on(secure_kafka, mistake, request_timeout_ms=3_000)
        assert told in told_by(stream, told)
        stream.close()
    assert "wrong-mark" not in caplog.text
    assert SCRAM_USER.password not in caplog.text
    assert SCRAM_USER.password not in repr(security)


def test_tls_to_a_broker_that_speaks_plainly_is_told(secure_kafka: KafkaService, security: KafkaSecurity) -> None:
    stream = KafkaStream(secure_kafka.nodes_bootstrap, security=security, request_timeout_ms=3_000)
    told = "connecting to a PLAINTEXT broker listener"
    assert told in told_by(stream, told)
    stream.close()
