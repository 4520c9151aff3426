"""Three Kafka nodes keep three copies, and any one of them may die, be stopped and come back."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic

from deploy.services import KafkaService, ServiceError
from tests.operations.processes import wait_until
from tests.shared_service import is_well, skip_or_fail, started

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.services, pytest.mark.timeout(900)]

_TIMEOUT_S = 60


@pytest.fixture
def cluster(folder: Path) -> Iterator[KafkaService]:
    session = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "200"}
    try:
        cluster = started(lambda place: KafkaService(place, 3, heap_mb=256, properties=session), folder / "kafka")
    except ServiceError as error:
        skip_or_fail(f"no Kafka: {str(error).splitlines()[0]}")
    try:
        yield cluster
    finally:
        cluster.kill()


def in_sync_replicas(admin: AdminClient) -> set[int]:
    partitions = admin.list_topics("kept", timeout=_TIMEOUT_S).topics["kept"].partitions
    return set(partitions[0].isrs) if partitions else set()


def configuration_of_topic(admin: AdminClient) -> dict[str, ConfigEntry]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, "kept")
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            configuration: dict[str, ConfigEntry] = admin.describe_configs([resource])[resource].result()
        except KafkaException as refusal:
            if refusal.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
                raise
        else:
            return configuration


def test_a_record_that_is_acknowledged_without_one_node_is_on_all_three_in_the_end(cluster: KafkaService) -> None:
    assert cluster.url.count(",") == 2
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    # Its replication is the cluster's default.
    admin.create_topics([NewTopic("kept", 1)])["kept"].result()
    # The cluster has made it before each of its nodes knows it, and any of them may be asked.
    wait_until(lambda: in_sync_replicas(admin) == {1, 2, 3}, "the topic on all three")
    configuration = configuration_of_topic(admin)
    assert configuration["min.insync.replicas"].value == "2"
    assert configuration["unclean.leader.election.enable"].value == "false"

    leader = admin.list_topics("kept", timeout=_TIMEOUT_S).topics["kept"].partitions[0].leader
    cluster.kill_node(leader)
    assert leader not in cluster.node_pids()
    # The others answer for the cluster, and take records.
    wait_until(lambda: is_well(cluster), "an answer of the others")
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "enable.idempotence": True})
    producer.produce("kept", b"one")
    assert producer.flush(_TIMEOUT_S) == 0

    cluster.start_node(leader)
    wait_until(lambda: in_sync_replicas(admin) == {1, 2, 3}, "all three copies")
    other = leader % 3 + 1
    cluster.stop_node(other)
    producer.produce("kept", b"two")
    assert producer.flush(_TIMEOUT_S) == 0
    cluster.start_node(other)
    assert set(cluster.node_pids()) == {1, 2, 3}
    with pytest.raises(ServiceError, match="no node 4"):
        cluster.kill_node(4)
