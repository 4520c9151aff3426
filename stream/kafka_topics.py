"""Making, describing and changing the topics of a Kafka cluster.

What a TopicDescription leaves open (None) is not sent: the broker's own default holds then. A description that was read
has everything. Changing a topic sets its settings and adds partitions; nothing here takes partitions away (Kafka cannot)
or moves replicas (kafka-reassign-partitions does, and it is work of hours that an operator plans).
"""

from collections.abc import Iterable, Mapping

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # all are public, but not all marked as exported
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from stream.interface import StreamUnavailable, TopicDescription, UnknownTopic
from stream.kafka_admin import KafkaAdmin
from stream.kafka_errors import TopicExists

# A busy cluster that makes a hundred partitions at once takes its time over the last of them.
_LEADERS_WAIT_S = 60.0
# Topics of the cluster itself, such as __consumer_offsets.
_INTERNAL = "__"


def make_topics(admin: KafkaAdmin, topics: Iterable[TopicDescription], replication_factor: int) -> None:
    """Make those that do not exist, and return when each of their partitions has a leader."""
    wanted = {
        admin.prefix + topic.name: NewTopic(
            admin.prefix + topic.name,
            num_partitions=topic.partitions,
            replication_factor=topic.replication_factor or replication_factor,
            config=_configuration(topic),
        )
        for topic in topics
    }
    if not wanted:
        return
    made = admin.client().create_topics(list(wanted.values()), request_timeout=admin.request_timeout_s)
    for name in wanted:
        try:
            admin.result(made[name], f"create {name}")
        except TopicExists:
            continue
    for name, topic in wanted.items():
        _wait_for_leaders(admin, name, topic.num_partitions)


def read_topics(admin: KafkaAdmin) -> dict[str, TopicDescription]:
    """Every topic under the prefix, without it; internal ones of the cluster left out."""
    found = {
        name: topic
        for name, topic in admin.metadata("list topics").topics.items()
        if name.startswith(admin.prefix) and not name.startswith(_INTERNAL) and topic.error is None
    }
    configurations = _read_configurations(admin, found)
    return {
        name.removeprefix(admin.prefix): _described(
            name.removeprefix(admin.prefix),
            len(topic.partitions),
            min((len(one.replicas) for one in topic.partitions.values()), default=0),
            configurations[name],
        )
        for name, topic in sorted(found.items())
    }


def change_topic(admin: KafkaAdmin, wanted: TopicDescription, partitions: int) -> None:
    """Give a topic that has `partitions` what `wanted` says; raises UnknownTopic, StreamError when the cluster refuses."""
    name = admin.prefix + wanted.name
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in _configuration(wanted).items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    [changed] = admin.client().incremental_alter_configs([resource], request_timeout=admin.request_timeout_s).values()
    admin.result(changed, f"change {name}")
    _wait_for_configuration(admin, name, _configuration(wanted))
    if wanted.partitions > partitions:
        more = NewPartitions(name, wanted.partitions)
        [added] = admin.client().create_partitions([more], request_timeout=admin.request_timeout_s).values()
        admin.result(added, f"add partitions to {name}")
        _wait_for_leaders(admin, name, wanted.partitions)


def _configuration(topic: TopicDescription) -> dict[str, str]:
    values = {
        "retention.ms": topic.retention_ms,
        "min.insync.replicas": topic.min_insync_replicas,
        "max.message.bytes": topic.max_message_bytes,
        "unclean.leader.election.enable": topic.unclean_leader_election,
        "cleanup.policy": topic.cleanup_policy,
    }
    # Kafka writes true and false in lower case.
    return {key: str(value).lower() for key, value in values.items() if value is not None}


def _described(
    name: str, partitions: int, replication_factor: int, configuration: Mapping[str, str]
) -> TopicDescription:
    return TopicDescription(
        name,
        partitions,
        int(configuration["retention.ms"]),
        replication_factor,
        int(configuration["min.insync.replicas"]),
        int(configuration["max.message.bytes"]),
        configuration["unclean.leader.election.enable"] == "true",
        configuration["cleanup.policy"],
    )


def _read_configurations(admin: KafkaAdmin, names: Iterable[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}

    def ask() -> dict[str, dict[str, str]]:
        answers = admin.client().describe_configs(resources, request_timeout=admin.request_timeout_s)
        return {
            resource.name: {key: one.value for key, one in admin.result(answer, f"describe {resource.name}").items()}
            for resource, answer in answers.items()
        }

    # The broker that is asked may not have heard yet of a topic that another one has told of.
    return admin.patiently(ask, also=UnknownTopic)


def _wait_for_leaders(admin: KafkaAdmin, name: str, partitions: int) -> None:
    """A cluster says that a topic is made before every broker knows it and leads its part of it."""
    places = [TopicPartition(name, number) for number in range(partitions)]

    def ask() -> None:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the client carries no type here
        answers = admin.client().list_offsets(dict.fromkeys(places, latest), request_timeout=admin.request_timeout_s)
        for answer in answers.values():
            admin.result(answer, f"offsets of {name}")

    admin.patiently(ask, also=UnknownTopic, wait_s=_LEADERS_WAIT_S)


def _wait_for_configuration(admin: KafkaAdmin, name: str, wanted: Mapping[str, str]) -> None:
    """A cluster says that a topic is changed before the broker that is asked next has heard of it."""

    def ask() -> None:
        if not wanted.items() <= _read_configurations(admin, [name])[name].items():
            raise StreamUnavailable(f"change {name}: its settings are not yet what they were set to")

    admin.patiently(ask)
