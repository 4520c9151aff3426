"""What a Kafka cluster knows about groups and unread records, for operators: nothing of it decides where reading starts.

A member's group.instance.id is the group, the instance number and the number of partitions that the topic had when the
member joined. The number of partitions is in it for the sake of correctness: a static member that comes back within its
session gets its old partitions without a rebalance, so a group whose members all came back after partitions were added
would never look at these. Under a new id a member is new to the group, which rebalances, and once the old id's session
has run out, everything is shared out again.
"""

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer as KafkaClientConsumer
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, TopicPartition

from stream.interface import OffsetOutOfRange, Partition, StreamUnavailable
from stream.kafka_admin import KafkaAdmin
from stream.kafka_errors import PARTITION_EOF, translated

_POLL_S = 0.2
_RECORDS_PER_POLL = 100
# Only the first record of each partition is wanted; a broker sends at least one batch, however large, all the same.
_FETCH_BYTES = 16 * 1024


def instance_id(prefix: str, group: str, instance: int, partitions: int) -> str:
    return f"{prefix}{group}-{instance}-{partitions}"


def read_committed_offsets(admin: KafkaAdmin, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Per partition what the group has committed; one that has no offset is missing."""
    places = [TopicPartition(admin.prefix + topic, number) for number in range(partitions)]
    request = ConsumerGroupTopicPartitions(admin.prefix + group, places)

    def ask() -> dict[int, int]:
        [answer] = (
            admin.client().list_consumer_group_offsets([request], request_timeout=admin.request_timeout_s).values()
        )
        found = admin.result(answer, f"committed offsets of {group}").topic_partitions
        # -1001 stands for none.
        return {place.partition: place.offset for place in found if place.offset >= 0}

    return admin.patiently(ask)


def read_owners(admin: KafkaAdmin, group: str, topic: str) -> dict[int, int]:
    """Per partition the instance number of the member that has it; without members that are not ours."""
    name = admin.prefix + group

    def ask() -> dict[int, int]:
        [answer] = admin.client().describe_consumer_groups([name], request_timeout=admin.request_timeout_s).values()
        owners: dict[int, int] = {}
        for member in admin.result(answer, f"members of {group}").members:
            number = _instance_of(member.group_instance_id, name)
            if number is not None:
                places = member.assignment.topic_partitions
                owners |= {place.partition: number for place in places if place.topic == admin.prefix + topic}
        return owners

    return admin.patiently(ask)


def _instance_of(group_instance_id: str | None, group: str) -> int | None:
    numbers = (group_instance_id or "").removeprefix(f"{group}-").split("-")
    return int(numbers[0]) if len(numbers) == 2 and all(number.isdigit() for number in numbers) else None


def read_times_ms(
    settings: dict[str, Any], prefix: str, offsets: Mapping[Partition, int], timeout_s: float
) -> dict[Partition, int]:
    """The time of the first record at each of these offsets or behind it, as far as they come in time.

    One consumer, which belongs to no group, reads all partitions side by side and leaves each after its first record.
    """
    wanted = {(prefix + place.topic, place.number): place for place in offsets}
    reader = KafkaClientConsumer(
        settings
        | {
            "group.id": f"{prefix}look",
            "fetch.message.max.bytes": _FETCH_BYTES,
            "queued.min.messages": 1,
            # A reader that only looks is free to go on at the log's new start.
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    times: dict[Partition, int] = {}
    deadline = time.monotonic() + timeout_s
    try:
        reader.assign([TopicPartition(prefix + place.topic, place.number, at) for place, at in offsets.items()])
        while wanted and time.monotonic() < deadline:
            for message in reader.consume(_RECORDS_PER_POLL, min(_POLL_S, timeout_s)):
                error = message.error()
                if error is not None and error.code() != PARTITION_EOF:
                    _raise_if_serious(error)
                    continue
                topic, number = message.topic(), message.partition()
                assert topic is not None
                assert number is not None
                found = wanted.pop((topic, number), None)
                if found is not None:
                    reader.incremental_unassign([TopicPartition(topic, number)])
                    if error is None:
                        times[found] = message.timestamp()[1]
        return times
    finally:
        reader.close()


def _raise_if_serious(error: KafkaError) -> None:
    """Brokers that come and go are waited for, as long as there is time."""
    trouble = translated(error, "look at unread records")
    if not isinstance(trouble, StreamUnavailable | OffsetOutOfRange):
        raise trouble
