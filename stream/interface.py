"""What a stream is: partitioned topics, offsets that mean "next to read", owners of partitions, acknowledged writes.

Shapes. A record has a key and a value of bytes; records of one key stand in one partition, in the order in which they
were appended. An offset always names the next record to read, never the last one that was read.

Three kinds of trouble, as everywhere in the switch: `StreamUnavailable` (slow down and try again), `OffsetOutOfRange`
(the log begins after the offset that was asked for: stop and say so, never skip in silence), anything else is a bug.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read. `timestamp_ms` is the producer's clock in milliseconds since 1970."""

    partition: Partition
    offset: int
    key: bytes
    value: bytes
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to append."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What a stream must know to make a topic, and what it says about one that is there.

    The last five are Kafka's, by Kafka's names. None: as the cluster does it by default, or the stream has no such thing.
    """

    name: str
    partitions: int
    retention_ms: int
    replication_factor: int | None = None
    min_insync_replicas: int | None = None
    max_message_bytes: int | None = None
    unclean_leader_election: bool | None = None
    cleanup_policy: str | None = None


class StreamError(Exception):
    """Trouble with the stream."""


class StreamUnavailable(StreamError):
    """The broker, or the database behind the table stream, does not answer now; trying again may help."""


class NotAcknowledged(StreamUnavailable):
    """Some records that were handed to the producer were not acknowledged within the time allowed."""


class OffsetOutOfRange(StreamError):
    """The log of a partition begins after the offset that its reader needs (or ends before it)."""


class UnknownTopic(StreamError):
    """The topic does not exist; topics are provisioned from the catalogue, never by accident."""


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that a key belongs to: the same on every stream, so that both can be asked where a key is read."""
    return zlib.crc32(key) % partitions


class Producer(Protocol):
    """Appends records. Not safe for two threads unless the implementation says so."""

    def produce(self, records: Iterable[NewRecord]) -> None:
        """Hand records over in order. Returns at once or after the append; raises StreamUnavailable, UnknownTopic."""

    def wait_for_acks(self, timeout_ms: int) -> None:
        """Return when everything handed over so far is durable; raises NotAcknowledged.

        After NotAcknowledged some of the records may still arrive: the caller keeps them and hands all of them over
        again through a new producer (repeats are dropped by state, architecture §2.6).
        """

    def close(self) -> None:
        """Give up connections. Does not wait for acks."""


# Called with the partitions that were won; returns for each the offset to start at.
OnAssign = Callable[[list[Partition]], Mapping[Partition, int]]
# Called with the partitions that go; `lost` says that another owner may already read them, so nothing may be written.
OnRevoke = Callable[[list[Partition], bool], None]


class Consumer(Protocol):
    """Reads one topic as a member of a group. One thread; the callbacks run inside `consume` and `close`."""

    def consume(self, records_max: int, timeout_ms: int) -> list[Record]:
        """Up to `records_max` records of all owned partitions, each partition's in offset order.

        Waits at most `timeout_ms` for the first one and returns at once with what is there when there is something.
        Raises StreamUnavailable, OffsetOutOfRange, UnknownTopic.
        """

    def owned(self) -> frozenset[Partition]:
        """The partitions this member owns now."""

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell lag tools how far the handler is; never waits, never decides where reading starts."""

    def close(self) -> None:
        """Leave the group; what was owned is revoked first."""


class Stream(Protocol):
    """A place where topics live."""

    def create_topics(self, topics: Iterable[TopicDescription]) -> None:
        """Make the topics that do not exist yet; leaves the others as they are."""

    def topics(self) -> dict[str, TopicDescription]:
        """Every topic there is, by name, as it is now; raises StreamUnavailable."""

    def change_topic(self, wanted: TopicDescription) -> None:
        """Give a topic the settings that `wanted` names, and the partitions that it lacks; its records stay where they are.

        Partitions are never taken away, replicas never moved. Raises UnknownTopic, StreamUnavailable, StreamError.
        """

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has, or had a moment ago; raises UnknownTopic.

        Some processes count partitions that were added a while before others do. Nothing may rest on the same key
        standing in the same partition for ever.
        """

    def log_id(self, topic: str) -> str:
        """The name of this topic's log: a topic that was deleted and made again, or lies elsewhere, has another one.

        An offset means something in its own log only. Raises UnknownTopic, StreamUnavailable.
        """

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Per partition the offset that the next record will get; raises UnknownTopic."""

    def start_offsets(self, topic: str) -> dict[int, int]:
        """Per partition the offset of the oldest record that is still kept."""

    def producer(self) -> Producer:
        """A producer of its own connection."""

    def consumer(self, group: str, topic: str, instance: int, on_assign: OnAssign, on_revoke: OnRevoke) -> Consumer:
        """A member of `group` that reads `topic`; `instance` is its number in the group, held by nobody else now."""

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        """Look at records without belonging to a group (for operators and tests); may return fewer, [] at the end."""

    def offset_from(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The offset of the first record of this time or later, or the end (for operators and tests).

        Exact as far as the producers' clocks agree: whoever needs more looks a little earlier.
        """

    def committed_offsets(self, group: str, topic: str) -> dict[int, int]:
        """What the group's members have told the stream with `commit`, per partition; {} where the stream keeps none."""

    def owners(self, group: str, topic: str) -> dict[int, int]:
        """Per partition the instance that reads it for the group now; a partition that nobody reads is missing."""

    def times_ms(self, offsets: Mapping[Partition, int], timeout_ms: int) -> dict[Partition, int]:
        """The time of the first record at each offset or behind it; those that are not found in time are missing."""

    def trim(self, topic: str, partition: int, before_offset: int) -> None:
        """Forget the records before an offset, whoever still wants them (for operators and tests)."""

    def trim_read(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        """Forget what is older than the topic's retention and lies before its reader's next offset, partition by partition.

        A bounded piece of work per call; nothing to do where the stream keeps its retention by itself.
        """

    def close(self) -> None:
        """Give up what is shared between producers and consumers."""
