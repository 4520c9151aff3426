"""Appending to Kafka topics, in the order in which records were handed over.

A producer counts what it hands over and what failed. A record that was not delivered within `delivery_timeout_ms`, or
a producer that broke, makes the producer useless for good: `wait_for_acks` raises NotAcknowledged from then on, and the
caller hands everything over again through a new one.

Partitions are chosen here (`partition_of`), never by the client's own hash. Partitions may be added to a topic that lives:
this process then counts more of them than the client has heard of, and the client, asked again, hears of them too.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.interface import NewRecord, NotAcknowledged, StreamUnavailable, partition_of
from stream.kafka_errors import UNKNOWN_PARTITION, error_of, translated
from stream.kafka_trouble import ConnectionTrouble
from stream.limits import check_size

_log = logging.getLogger(__name__)

_ASK_AGAIN_S = 0.02


class KafkaProducer:
    """Implements stream.interface.Producer. Not safe for two threads; after an exception only `close` is left."""

    def __init__(
        self, settings: dict[str, Any], prefix: str, partitions: Callable[[str], int], produce_wait_max_s: float
    ) -> None:
        self._prefix = prefix
        self._partitions = partitions
        self._produce_wait_max_s = produce_wait_max_s
        self._failed: str | None = None
        self._trouble = ConnectionTrouble()
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
            text = f"{waiting} records were not acknowledged within {timeout_ms} ms"
            self._failed = self._trouble.added_to(text)
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
                if error_of(exception).code() == UNKNOWN_PARTITION and time.monotonic() < deadline:
                    self._hear_of_partitions(record.topic)
                    continue
                self._failed = f"cannot produce to {record.topic}: {error_of(exception).str()}"
                raise translated(error_of(exception), f"produce to {record.topic}") from exception
            else:
                return

    def _hear_of_partitions(self, topic: str) -> None:
        """Partitions were added: this process has counted them, and its client has not."""
        try:
            self._client.list_topics(self._prefix + topic, timeout=self._produce_wait_max_s)
        except KafkaException as exception:
            self._failed = f"cannot produce to {topic}: {error_of(exception).str()}"
            raise translated(error_of(exception), f"produce to {topic}") from exception
        # What the client has heard reaches its producing side a moment later.
        self._client.poll(_ASK_AGAIN_S)

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = f"a record for {message.topic()}/{message.partition()} failed: {error.str()}"

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed = f"the producer broke: {error.str()}"
        else:
            self._trouble.note(error)
            _log.debug("producer: %s", error.str())
