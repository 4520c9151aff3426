"""Real Kafka under the pipeline: what is carried is produced, acknowledged and read back through topics of one partition.

Topics and reader are made once per test process, because making twenty topics for each of some hundred tests would take
longer than the tests. Every record bears the number of the call that carries it, so what an earlier test may have left
behind is never taken for this one's; a record that does not come back, or comes changed, fails the test.
"""

import itertools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from schemas.topics import CATALOGUE
from stream.interface import NewRecord, TopicDescription
from stream.kafka import KafkaStream

_WAIT_S = 30
_CARRIED = "carried"


class KafkaTransport:
    """Carries records through the cluster that `bootstrap_servers` leads to; one thread at a time."""

    def __init__(self, bootstrap_servers: str, namespace: str) -> None:
        self._prefix = f"{namespace}."
        self._stream = KafkaStream(bootstrap_servers, namespace=namespace, linger_ms=0)
        self._stream.create_topics(TopicDescription(topic.name, 1, topic.retention_ms) for topic in CATALOGUE.values())
        self._producer = self._stream.producer()
        self._reader = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"{self._prefix}transport",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )
        self._reader.assign([TopicPartition(self._prefix + topic, 0, 0) for topic in CATALOGUE])
        self._calls = itertools.count(1)

    def carry(self, records: Sequence[NewRecord]) -> list[NewRecord]:
        """The records as they were read back, in the order given."""
        call = (_CARRIED, str(next(self._calls)).encode())
        self._producer.produce(
            NewRecord(one.topic, one.key, one.value, headers=(*one.headers, call)) for one in records
        )
        self._producer.wait_for_acks(_WAIT_S * 1_000)
        read: dict[str, deque[NewRecord]] = {}
        deadline = time.monotonic() + _WAIT_S
        missing = len(records)
        while missing:
            assert time.monotonic() < deadline, f"{missing} of {len(records)} records did not come back"
            message = self._reader.poll(1)
            if message is not None and call in (headers := self._headers(message)):
                headers.remove(call)
                topic = str(message.topic()).removeprefix(self._prefix)
                one = NewRecord(topic, message.key() or b"", message.value() or b"", tuple(headers))
                read.setdefault(topic, deque()).append(one)
                missing -= 1
        carried = [read[one.topic].popleft() for one in records]
        assert carried == list(records)
        return carried

    def close(self) -> None:
        self._producer.close()
        self._reader.close()
        self._stream.close()

    @staticmethod
    def _headers(message: Message) -> list[tuple[str, bytes]]:
        error = message.error()
        assert error is None, error
        # The client's own type for headers also allows what a broker never gives.
        headers: Any = message.headers()
        return list(headers or [])
