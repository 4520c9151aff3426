"""A stream on an Apache Kafka cluster, for everything that outgrows one machine.

Settings that carry the promises (architecture §2, §4): producers are idempotent with acks=all, partitions are chosen here
(`partition_of`), never by the client's own hash; topics are made here and nowhere else. Reading as a member of a group is
`kafka_consumer`. A cluster may be shared: a namespace stands before every topic's and group's name, and nowhere else.

The parts: `kafka_producer`, `kafka_consumer` (a member of a group), `kafka_topics` (making and changing topics),
`kafka_groups` (what operators ask about groups), `kafka_admin` (how the cluster is asked).

The client's own log lines go to the logger `stream.kafka.client`.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer as KafkaClientConsumer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, but not marked as exported

from stream.interface import (
    OnAssign,
    OnRevoke,
    Partition,
    Record,
    StreamUnavailable,
    TopicDescription,
    UnknownTopic,
)
from stream.kafka_admin import CLIENT_LOG, KafkaAdmin
from stream.kafka_consumer import KafkaConsumer, record_of
from stream.kafka_errors import PARTITION_EOF, translated
from stream.kafka_groups import instance_id, read_committed_offsets, read_owners, read_times_ms
from stream.kafka_log_identity import read_log_id
from stream.kafka_producer import KafkaProducer
from stream.kafka_security import KafkaSecurity
from stream.kafka_topics import change_topic, make_topics, read_topics
from stream.limits import KAFKA_BATCH_BYTES_MAX

_METADATA_REFRESH_MS = 5_000
_READ_PAUSE_S = 0.2


class KafkaStream:
    """Implements stream.interface.Stream on the cluster that `bootstrap_servers` ("host:port,host:port") leads to.

    Safe for several threads, as the client's own classes are.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        namespace: str = "",
        replication_factor: int = 1,
        session_timeout_ms: int = 6_000,
        poll_interval_max_ms: int = 120_000,
        brokers_down_max_ms: int = 10_000,
        request_timeout_ms: int = 10_000,
        delivery_timeout_ms: int = 30_000,
        produce_wait_max_ms: int = 5_000,
        linger_ms: float = 2,
        partitions_kept_ms: int = 60_000,
        producer_queue_kbytes_max: int = 64 * 1024,
        fetch_queue_kbytes_max: int = 16 * 1024,
        security: KafkaSecurity | None = None,
    ) -> None:
        self._prefix = f"{namespace}." if namespace else ""
        self._replication_factor = replication_factor
        self._produce_wait_max_s = produce_wait_max_ms / 1000
        self._brokers_down_max_s = brokers_down_max_ms / 1000
        self._partitions_kept_s = partitions_kept_ms / 1000
        self._client: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "socket.keepalive.enable": True,
            "log.connection.close": False,
            # A broker that comes back is found within a second.
            "reconnect.backoff.max.ms": 1_000,
            # New partitions are noticed by whoever reads them before most of those who write have counted them.
            "topic.metadata.refresh.interval.ms": min(_METADATA_REFRESH_MS, partitions_kept_ms),
            "logger": CLIENT_LOG,
        } | (security or KafkaSecurity()).client_settings()
        self._producer_settings = self._client | {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "delivery.timeout.ms": delivery_timeout_ms,
            "queue.buffering.max.kbytes": producer_queue_kbytes_max,
            "message.max.bytes": KAFKA_BATCH_BYTES_MAX,
        }
        self._reader_settings = self._client | {
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": fetch_queue_kbytes_max,
            # A full queue is looked at again at once; the default of a second makes a fast reader wait.
            "fetch.queue.backoff.ms": 20,
        }
        self._member_settings = self._reader_settings | {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            # Members learn of a rebalance with a heartbeat.
            "heartbeat.interval.ms": min(1_000, session_timeout_ms // 4),
            "max.poll.interval.ms": max(poll_interval_max_ms, session_timeout_ms),
        }
        self._admin = KafkaAdmin(self._client, self._prefix, request_timeout_ms / 1000)
        # Topic -> its number of partitions and when that was read.
        self._partitions: dict[str, tuple[int, float]] = {}

    def create_topics(self, topics: Iterable[TopicDescription]) -> None:
        make_topics(self._admin, topics, self._replication_factor)

    def topics(self) -> dict[str, TopicDescription]:
        return read_topics(self._admin)

    def change_topic(self, wanted: TopicDescription) -> None:
        change_topic(self._admin, wanted, self._look_up(wanted.name))
        self._partitions.pop(wanted.name, None)

    def partitions(self, topic: str) -> int:
        known = self._partitions.get(topic)
        if known is not None and time.monotonic() - known[1] < self._partitions_kept_s:
            return known[0]
        try:
            count = self._look_up(topic)
        except StreamUnavailable:
            # A cluster that is away does not change its topics; what was known still holds.
            if known is not None:
                return known[0]
            raise
        self._partitions[topic] = (count, time.monotonic())
        return count

    def log_id(self, topic: str) -> str:
        name = self._prefix + topic
        return self._admin.patiently(lambda: read_log_id(self._admin, name))

    def end_offsets(self, topic: str) -> dict[int, int]:
        return self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # the client carries no type here

    def start_offsets(self, topic: str) -> dict[int, int]:
        return self._offsets(topic, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # the client carries no type here

    def producer(self) -> "KafkaProducer":
        return KafkaProducer(self._producer_settings, self._prefix, self.partitions, self._produce_wait_max_s)

    def consumer(
        self, group: str, topic: str, instance: int, on_assign: OnAssign, on_revoke: OnRevoke
    ) -> KafkaConsumer:
        return KafkaConsumer(
            self._member_settings | {"group.id": self._prefix + group},
            instance_id=lambda: instance_id(self._prefix, group, instance, self._look_up(topic)),
            probe=lambda: self._look_up(topic),
            prefix=self._prefix,
            topic=topic,
            on_assign=on_assign,
            on_revoke=on_revoke,
            brokers_down_max_s=self._brokers_down_max_s,
        )

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        where = self._place(topic, partition, offset)
        settings = self._reader_settings | {"group.id": f"{self._prefix}read", "enable.partition.eof": True}
        reader = KafkaClientConsumer(settings)
        found: list[Record] = []
        try:
            reader.assign([where])
            deadline = time.monotonic() + self._admin.request_timeout_s
            while len(found) < records_max and time.monotonic() < deadline:
                message = reader.poll(_READ_PAUSE_S)
                error = None if message is None else message.error()
                if error is not None and error.code() == PARTITION_EOF:
                    break
                if error is not None:
                    trouble = translated(error, f"{topic}/{partition} at {offset}")
                    if not isinstance(trouble, StreamUnavailable):
                        raise trouble
                elif message is not None:
                    found.append(record_of(Partition(topic, partition), message))
            return found
        finally:
            reader.close()

    def offset_from(self, topic: str, partition: int, timestamp_ms: int) -> int:
        place = self._place(topic, partition, 0)
        where = TopicPartition(place.topic, partition)

        def ask() -> int:
            found = self._admin.client().list_offsets(
                {where: OffsetSpec.for_timestamp(timestamp_ms)}, request_timeout=self._admin.request_timeout_s
            )
            offset: int = self._admin.result(found[where], f"offset of {timestamp_ms} ms in {topic}/{partition}").offset
            return offset

        offset = self._admin.patiently(ask)
        # The broker says -1 when every record is older.
        return self.end_offsets(topic)[partition] if offset < 0 else offset

    def trim(self, topic: str, partition: int, before_offset: int) -> None:
        where = self._place(topic, partition, before_offset)

        def delete() -> None:
            deleted = self._admin.client().delete_records([where], request_timeout=self._admin.request_timeout_s)
            self._admin.result(deleted[where], f"trim {topic}/{partition} before {before_offset}")

        self._admin.patiently(delete)

    def trim_read(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        """The broker keeps retention.ms by itself."""

    def committed_offsets(self, group: str, topic: str) -> dict[int, int]:
        return read_committed_offsets(self._admin, group, topic, self.partitions(topic))

    def owners(self, group: str, topic: str) -> dict[int, int]:
        return read_owners(self._admin, group, topic)

    def times_ms(self, offsets: Mapping[Partition, int], timeout_ms: int) -> dict[Partition, int]:
        return read_times_ms(self._reader_settings, self._prefix, offsets, timeout_ms / 1000) if offsets else {}

    def close(self) -> None:
        self._admin.close()

    def _place(self, topic: str, partition: int, offset: int) -> TopicPartition:
        if partition >= self.partitions(topic):
            raise UnknownTopic(f"{topic} has no partition {partition}")
        return TopicPartition(self._prefix + topic, partition, offset)

    def _look_up(self, topic: str) -> int:
        """The topic's number of partitions as the cluster says now; raises UnknownTopic, StreamUnavailable."""
        found = self._admin.metadata(f"look {topic} up", self._prefix + topic).topics[self._prefix + topic]
        if found.error is not None:
            raise translated(found.error, f"look {topic} up")
        if any(partition.leader < 0 for partition in found.partitions.values()):
            raise StreamUnavailable(f"{topic}: a partition has no leader")
        return len(found.partitions)

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        wanted = [TopicPartition(self._prefix + topic, number) for number in range(self.partitions(topic))]

        def ask() -> dict[int, int]:
            answers = self._admin.client().list_offsets(
                dict.fromkeys(wanted, spec), request_timeout=self._admin.request_timeout_s
            )
            return {
                where.partition: self._admin.result(answer, f"offsets of {topic}").offset
                for where, answer in answers.items()
            }

        return self._admin.patiently(ask)
