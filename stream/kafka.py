"""A stream on an Apache Kafka cluster, for everything that outgrows one machine.

Settings that carry the promises (architecture §2, §4): producers are idempotent with acks=all, partitions are chosen here
(`partition_of`), never by the client's own hash; topics are made here and nowhere else. Reading as a member of a group is
`kafka_consumer`. A cluster may be shared: a namespace stands before every topic's and group's name, and nowhere else.

A producer counts what it hands over and what failed. A record that was not delivered within `delivery_timeout_ms`, or
a producer that broke, makes the producer useless for good: `wait_for_acks` raises NotAcknowledged from then on, and the
caller hands everything over again through a new one.

The client's own log lines go to the logger `stream.kafka.client`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer as KafkaClientConsumer
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # all are public, but not all marked as exported
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from stream.interface import (
    NewRecord,
    NotAcknowledged,
    OnAssign,
    OnRevoke,
    Partition,
    Record,
    StreamError,
    StreamUnavailable,
    TopicDescription,
    UnknownTopic,
    partition_of,
)
from stream.kafka_consumer import KafkaConsumer, record_of
from stream.kafka_errors import PARTITION_EOF, TopicExists, error_of, translated
from stream.limits import check_size

_log = logging.getLogger(__name__)
CLIENT_LOG = logging.getLogger("stream.kafka.client")

_PARTITIONS_KEPT_S = 300.0
_READ_PAUSE_S = 0.2
_ASK_AGAIN_S = 0.05

_Answer = TypeVar("_Answer")


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
        producer_queue_kbytes_max: int = 64 * 1024,
        fetch_queue_kbytes_max: int = 16 * 1024,
    ) -> None:
        self._prefix = f"{namespace}." if namespace else ""
        self._replication_factor = replication_factor
        self._request_timeout_s = request_timeout_ms / 1000
        self._produce_wait_max_s = produce_wait_max_ms / 1000
        self._brokers_down_max_s = brokers_down_max_ms / 1000
        self._client: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "socket.keepalive.enable": True,
            "log.connection.close": False,
            # A broker that comes back is found within a second.
            "reconnect.backoff.max.ms": 1_000,
            "logger": CLIENT_LOG,
        }
        self._producer_settings = self._client | {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "delivery.timeout.ms": delivery_timeout_ms,
            "queue.buffering.max.kbytes": producer_queue_kbytes_max,
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
        self._admin_client: AdminClient | None = None
        # Topic -> its number of partitions and when that was read.
        self._partitions: dict[str, tuple[int, float]] = {}

    def create_topics(self, topics: Iterable[TopicDescription]) -> None:
        wanted = {
            topic.name: NewTopic(
                self._prefix + topic.name,
                num_partitions=topic.partitions,
                replication_factor=self._replication_factor,
                config={"retention.ms": str(topic.retention_ms)},
            )
            for topic in topics
        }
        if not wanted:
            return
        made = self._admin().create_topics(list(wanted.values()), request_timeout=self._request_timeout_s)
        for name in wanted:
            try:
                self._result(made[self._prefix + name], f"create {name}")
            except TopicExists:
                continue
        # A cluster says that a topic is made before every broker knows it and leads its part of it.
        for name in wanted:
            self._patiently(partial(self.end_offsets, name), also=UnknownTopic)

    def partitions(self, topic: str) -> int:
        known = self._partitions.get(topic)
        if known is not None and time.monotonic() - known[1] < _PARTITIONS_KEPT_S:
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
            self._member_settings
            | {"group.id": self._prefix + group, "group.instance.id": f"{self._prefix}{group}-{instance}"},
            look_up=lambda: self.partitions(topic),
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
            deadline = time.monotonic() + self._request_timeout_s
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
            found = self._admin().list_offsets(
                {where: OffsetSpec.for_timestamp(timestamp_ms)}, request_timeout=self._request_timeout_s
            )
            offset: int = self._result(found[where], f"offset of {timestamp_ms} ms in {topic}/{partition}").offset
            return offset

        offset = self._patiently(ask)
        # The broker says -1 when every record is older.
        return self.end_offsets(topic)[partition] if offset < 0 else offset

    def trim(self, topic: str, partition: int, before_offset: int) -> None:
        where = self._place(topic, partition, before_offset)

        def delete() -> None:
            deleted = self._admin().delete_records([where], request_timeout=self._request_timeout_s)
            self._result(deleted[where], f"trim {topic}/{partition} before {before_offset}")

        self._patiently(delete)

    def trim_read(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        """The broker keeps retention.ms by itself."""

    def close(self) -> None:
        self._admin_client = None

    def _place(self, topic: str, partition: int, offset: int) -> TopicPartition:
        if partition >= self.partitions(topic):
            raise UnknownTopic(f"{topic} has no partition {partition}")
        return TopicPartition(self._prefix + topic, partition, offset)

    def _admin(self) -> AdminClient:
        if self._admin_client is None:
            # The admin client takes its logger beside the settings.
            settings = {name: value for name, value in self._client.items() if name != "logger"}
            self._admin_client = AdminClient(settings, logger=CLIENT_LOG)
        return self._admin_client

    def _result(self, future: "Future[Any]", what: str) -> Any:
        try:
            return future.result(timeout=2 * self._request_timeout_s)
        except TimeoutError as late:
            raise StreamUnavailable(f"{what}: no answer") from late
        except KafkaException as exception:
            raise translated(error_of(exception), what) from exception

    def _look_up(self, topic: str) -> int:
        """The topic's number of partitions as the cluster says now; raises UnknownTopic, StreamUnavailable."""
        try:
            metadata = self._admin().list_topics(self._prefix + topic, timeout=self._request_timeout_s)
        except KafkaException as exception:
            raise translated(error_of(exception), f"look {topic} up") from exception
        found = metadata.topics[self._prefix + topic]
        if found.error is not None:
            raise translated(found.error, f"look {topic} up")
        if any(partition.leader < 0 for partition in found.partitions.values()):
            raise StreamUnavailable(f"{topic}: a partition has no leader")
        return len(found.partitions)

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        wanted = [TopicPartition(self._prefix + topic, number) for number in range(self.partitions(topic))]

        def ask() -> dict[int, int]:
            answers = self._admin().list_offsets(dict.fromkeys(wanted, spec), request_timeout=self._request_timeout_s)
            return {
                where.partition: self._result(answer, f"offsets of {topic}").offset for where, answer in answers.items()
            }

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[], _Answer], *, also: type[StreamError] = StreamUnavailable) -> _Answer:
        """Ask again for a while: the admin client does not, when a partition's leader has just changed."""
        deadline = time.monotonic() + self._request_timeout_s
        while True:
            try:
                return ask()
            except (StreamUnavailable, also):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_ASK_AGAIN_S)


class KafkaProducer:
    """Implements stream.interface.Producer. Not safe for two threads; after an exception only `close` is left."""

    def __init__(
        self, settings: dict[str, Any], prefix: str, partitions: Callable[[str], int], produce_wait_max_s: float
    ) -> None:
        self._prefix = prefix
        self._partitions = partitions
        self._produce_wait_max_s = produce_wait_max_s
        self._failed: str | None = None
        # Only failures come back as a call, which saves one call per record.
        self._client = Producer(
            settings | {"delivery.report.only.error": True, "on_delivery": self._on_failure, "error_cb": self._on_error}
        )

    def produce(self, records: Iterable[NewRecord]) -> None:
        """Hand over to the client's queue and return; raises StreamUnavailable, UnknownTopic, RecordTooLarge."""
        if self._failed is not None:
            raise StreamUnavailable(self._failed)
        for record in records:
            check_size(record)
            self._hand_over(record, partition_of(record.key, self._partitions(record.topic)))
        self._client.poll(0)

    def wait_for_acks(self, timeout_ms: int) -> None:
        # Flushing sends at once what still lingers; it is called once per batch, never per record.
        waiting = self._client.flush(timeout_ms / 1000)
        if self._failed is not None:
            raise NotAcknowledged(self._failed)
        if waiting:
            self._failed = f"{waiting} records were not acknowledged within {timeout_ms} ms"
            raise NotAcknowledged(self._failed)

    def close(self) -> None:
        self._client.purge(blocking=False)
        self._client.poll(0)

    def _hand_over(self, record: NewRecord, partition: int) -> None:
        deadline = time.monotonic() + self._produce_wait_max_s
        while True:
            try:
                self._client.produce(
                    self._prefix + record.topic,
                    record.value,
                    record.key,
                    partition,
                    headers=list(record.headers) or None,
                )
            except BufferError:
                if time.monotonic() > deadline:
                    self._failed = f"the producer's queue was full for {self._produce_wait_max_s} s"
                    raise StreamUnavailable(self._failed) from None
                self._client.poll(0.1)
            except KafkaException as exception:
                self._failed = f"cannot produce to {record.topic}: {error_of(exception).str()}"
                raise translated(error_of(exception), f"produce to {record.topic}") from exception
            else:
                return

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = f"a record for {message.topic()}/{message.partition()} failed: {error.str()}"

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed = f"the producer broke: {error.str()}"
        else:
            _log.debug("producer: %s", error.str())
