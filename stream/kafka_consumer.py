"""Reading a Kafka topic as a member of a group.

Classic protocol, cooperative-sticky, static membership: the group.instance.id names the instance (kafka_groups), so a
process that comes back within `session_timeout_ms`, after a kill -9 or a restart, has its partitions at once and without
a rebalance. The other side of it: a member that closes does not leave the group; its partitions go to the others when its
session has run out. Partitions that are added to a topic are noticed by the group's leader within five seconds.

Where reading starts is what `on_assign` returns, never what is committed; an offset that the log does not have is an
error (auto.offset.reset=error), OffsetOutOfRange here. `consume` is poll(timeout) for the first record, then what is
already there; it never seeks and never pauses. The client may hand out records of a partition that it takes away within
the same call, so what is not owned, or stands before the next offset, is dropped.

Errors: brokers come and go, and the client mends that by itself; only when all of them were away for
`brokers_down_max_ms` and a question to them stays without answer, StreamUnavailable. A fatal error (another process took
our instance id) is StreamUnavailable too. After any exception the consumer can only be closed.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.interface import OnAssign, OnRevoke, Partition, Record, StreamUnavailable
from stream.kafka_errors import ALL_BROKERS_DOWN, FATAL, translated

_log = logging.getLogger(__name__)


def record_of(partition: Partition, message: Message) -> Record:
    headers = message.headers()
    offset = message.offset()
    assert offset is not None
    return Record(
        partition,
        offset,
        message.key() or b"",
        message.value() or b"",
        message.timestamp()[1],
        tuple(headers) if headers else (),  # type: ignore[arg-type]  # the broker gives a list of (str, bytes)
    )


class KafkaConsumer:
    """Implements stream.interface.Consumer. Joins the group in the first `consume`."""

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        instance_id: Callable[[], str],
        probe: Callable[[], int],
        prefix: str,
        topic: str,
        on_assign: OnAssign,
        on_revoke: OnRevoke,
        brokers_down_max_s: float,
    ) -> None:
        self._settings = settings | {"error_cb": self._on_error}
        self._instance_id = instance_id
        self._probe = probe
        self._prefix = prefix
        self._topic = topic
        self._assigned = on_assign
        self._revoked = on_revoke
        self._brokers_down_max_s = brokers_down_max_s
        self._client: Consumer | None = None
        self._failed = False
        self._down_since: float | None = None
        self._fatal: KafkaError | None = None
        # What a callback raised. It runs inside the client, which is left in order before anything is raised.
        self._trouble: BaseException | None = None
        # The next offset of each owned partition.
        self._positions: dict[int, int] = {}
        self._names: dict[int, Partition] = {}

    def consume(self, records_max: int, timeout_ms: int) -> list[Record]:
        if self._failed:
            raise StreamUnavailable(f"the reader of {self._topic} failed before; only close is left")
        try:
            return self._consume(self._client or self._join(), records_max, timeout_ms / 1000)
        except KafkaException as exception:
            self._failed = True
            raise StreamUnavailable(f"cannot read {self._topic}: {exception}") from exception
        except BaseException:
            self._failed = True
            raise

    def owned(self) -> frozenset[Partition]:
        # A copy, made in one step: those who ask whether a process is ready do so from another thread.
        return frozenset(self._names[number] for number in self._positions.copy())

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        places = [
            TopicPartition(self._prefix + partition.topic, partition.number, offset)
            for partition, offset in offsets.items()
        ]
        if self._client is None or not places:
            return
        try:
            self._client.commit(offsets=places, asynchronous=True)
        except KafkaException as exception:
            # Nothing depends on it; lag tools see it late.
            _log.debug("offsets of %s were not committed: %s", self._topic, exception)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
        # The client does not call back for what it lost before, nor when it is broken.
        if self._positions:
            self._forget(list(self._positions), lost=True)
        self._raise_trouble()

    def __del__(self) -> None:
        # A client that is destroyed before it is closed spins for ever inside the destructor. Nobody is told any more.
        if self._client is not None:
            self._positions.clear()
            self._client.close()

    def _join(self) -> Consumer:
        # Asking for the id asks for the topic, too: subscribing to one that is not there would wait for it in silence.
        client = Consumer(self._settings | {"group.instance.id": self._instance_id()})
        client.subscribe(
            [self._prefix + self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._client = client
        return client

    def _consume(self, client: Consumer, records_max: int, timeout_s: float) -> list[Record]:
        first = client.poll(timeout_s)
        self._raise_trouble()
        if first is None:
            self._check_brokers()
            return []
        messages = [first]
        if records_max > 1:
            messages += client.consume(records_max - 1, 0)
            self._raise_trouble()
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._raise_if_serious(error)
                continue
            number, offset = message.partition(), message.offset()
            assert number is not None
            assert offset is not None
            if offset >= self._positions.get(number, offset + 1):
                self._positions[number] = offset + 1
                records.append(record_of(self._names[number], message))
        if records:
            self._down_since = None
        self._check_brokers()
        return records

    def _raise_if_serious(self, error: KafkaError) -> None:
        trouble = translated(error, f"read {self._topic}")
        if not isinstance(trouble, StreamUnavailable):
            raise trouble
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        _log.info("reading %s: %s", self._topic, error.str())
        # What comes as a message has the code and not the mark.
        if error.fatal() or error.code() == FATAL:
            self._fatal = error
        elif error.code() == ALL_BROKERS_DOWN and self._down_since is None:
            self._down_since = time.monotonic()

    def _check_brokers(self) -> None:
        if self._fatal is not None:
            raise StreamUnavailable(f"the reader of {self._topic} broke: {self._fatal.str()}")
        if self._down_since is not None and time.monotonic() - self._down_since > self._brokers_down_max_s:
            # An idle reader hears nothing when the brokers are back, so it asks.
            self._probe()
            self._down_since = None

    def _on_assign(self, client: Consumer, places: list[TopicPartition]) -> None:
        # An empty list is normal in a cooperative rebalance: nothing more than before.
        names = {place.partition: Partition(self._topic, place.partition) for place in places}
        try:
            offsets = self._assigned(list(names.values())) if names else {}
            client.incremental_assign(
                [TopicPartition(place.topic, place.partition, offsets[names[place.partition]]) for place in places]
            )
        except BaseException as trouble:
            self._trouble = trouble
            return
        self._names.update(names)
        self._positions.update({number: offsets[name] for number, name in names.items()})

    def _on_revoke(self, client: Consumer, places: list[TopicPartition]) -> None:
        self._let_go(client, places, lost=False)

    def _on_lost(self, client: Consumer, places: list[TopicPartition]) -> None:
        self._let_go(client, places, lost=True)

    def _let_go(self, client: Consumer, places: list[TopicPartition], *, lost: bool) -> None:
        # The client may name partitions that it never gave.
        held = [place.partition for place in places if place.partition in self._positions]
        try:
            if held:
                self._forget(held, lost=lost)
        except BaseException as trouble:
            self._trouble = trouble
        try:
            client.incremental_unassign(places)
        except KafkaException as exception:
            # Partitions that were never assigned, because on_assign raised.
            _log.debug("leaving %s: %s", self._topic, exception)

    def _raise_trouble(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    def _forget(self, numbers: list[int], *, lost: bool) -> None:
        names = [self._names[number] for number in numbers]
        for number in numbers:
            del self._positions[number]
        self._revoked(names, lost)
