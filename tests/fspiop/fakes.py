"""A stream and an object store in memory, real enough to keep what they are given and to fail the way real ones do."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from object_store.interface import ObjectMissing, ObjectStoreUnavailable, StoredObject
from stream.interface import (
    Consumer,
    NewRecord,
    NotAcknowledged,
    OnAssign,
    OnRevoke,
    Partition,
    Producer,
    Record,
    StreamUnavailable,
    TopicDescription,
    UnknownTopic,
)

WAIT_S = 30


@dataclass
class MemoryStream:
    """Keeps the records that were acknowledged, and how many producers, calls and waits that took.

    `down` makes it refuse; `acknowledges` cleared holds acknowledgements back until it is set; `fails` looks at each
    call of records before it is kept.
    """

    records: list[NewRecord] = field(default_factory=list)
    batches: list[list[NewRecord]] = field(default_factory=list)
    producers: int = 0
    closed_producers: int = 0
    down: bool = False
    unknown_topics: set[str] = field(default_factory=set)
    acknowledges: threading.Event = field(default_factory=threading.Event)
    fails: Callable[[list[NewRecord]], None] = lambda _: None

    def __post_init__(self) -> None:
        self.acknowledges.set()

    def producer(self) -> Producer:
        if self.down:
            raise StreamUnavailable("no broker answers")
        self.producers += 1
        return MemoryProducer(self)

    def end_offsets(self, topic: str) -> dict[int, int]:
        if self.down:
            raise StreamUnavailable("no broker answers")
        return {0: len(self.records)}

    def start_offsets(self, topic: str) -> dict[int, int]:
        return {0: 0}

    def create_topics(self, topics: Iterable[TopicDescription]) -> None:
        raise NotImplementedError("the edge makes no topics")

    def log_id(self, topic: str) -> str:
        raise NotImplementedError("the edge reads from no offset")

    def topics(self) -> dict[str, TopicDescription]:
        raise NotImplementedError("the edge makes no topics")

    def change_topic(self, wanted: TopicDescription) -> None:
        raise NotImplementedError("the edge makes no topics")

    def committed_offsets(self, group: str, topic: str) -> dict[int, int]:
        raise NotImplementedError("the edge consumes nothing")

    def owners(self, group: str, topic: str) -> dict[int, int]:
        raise NotImplementedError("the edge consumes nothing")

    def times_ms(self, offsets: Mapping[Partition, int], timeout_ms: int) -> dict[Partition, int]:
        raise NotImplementedError("the edge reads nothing")

    def partitions(self, topic: str) -> int:
        return 1

    def consumer(self, group: str, topic: str, instance: int, on_assign: OnAssign, on_revoke: OnRevoke) -> Consumer:
        raise NotImplementedError("the edge consumes nothing")

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        raise NotImplementedError("the edge reads nothing")

    def offset_from(self, topic: str, partition: int, timestamp_ms: int) -> int:
        raise NotImplementedError("the edge reads nothing")

    def trim(self, topic: str, partition: int, before_offset: int) -> None:
        raise NotImplementedError("the edge trims nothing")

    def trim_read(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        raise NotImplementedError("the edge trims nothing")

    def close(self) -> None:
        return None


class MemoryProducer:
    """Holds records until they are acknowledged; a closed one forgets them."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self._pending: list[NewRecord] = []

    def produce(self, records: Iterable[NewRecord]) -> None:
        taken = list(records)
        if self._stream.down:
            raise StreamUnavailable("no broker answers")
        for record in taken:
            if record.topic in self._stream.unknown_topics:
                raise UnknownTopic(record.topic)
            self._pending.append(record)
        self._stream.fails(taken)

    def wait_for_acks(self, timeout_ms: int) -> None:
        if not self._stream.acknowledges.wait(timeout_ms / 1000) or self._stream.down:
            raise NotAcknowledged(f"{len(self._pending)} records were not acknowledged within {timeout_ms} ms")
        if self._pending:
            self._stream.batches.append(self._pending)
            self._stream.records.extend(self._pending)
        self._pending = []

    def close(self) -> None:
        self._stream.closed_producers += 1
        self._pending = []


@dataclass
class MemoryObjectStore:
    """Keeps objects in a dictionary. `down` makes it refuse; `answers` cleared makes every put hang until it is set."""

    objects: dict[str, bytes] = field(default_factory=dict)
    down: bool = False
    answers: threading.Event = field(default_factory=threading.Event)
    puts_running: int = 0
    puts_running_most: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.answers.set()

    def put(self, key: str, body: bytes) -> None:
        with self._lock:
            self.puts_running += 1
            self.puts_running_most = max(self.puts_running_most, self.puts_running)
        try:
            answered = self.answers.wait(WAIT_S)
        finally:
            with self._lock:
                self.puts_running -= 1
        if self.down or not answered:
            raise ObjectStoreUnavailable(f"cannot keep {key}")
        self.objects[key] = body

    def get(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectMissing(key) from None

    def exists(self, key: str) -> bool:
        if self.down:
            raise ObjectStoreUnavailable(f"cannot look for {key}")
        return key in self.objects

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    # The edge never asks for what follows.
    def provision(self) -> None:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError

    def put_ms(self, key: str) -> int | None:
        raise NotImplementedError

    def page(self, prefix: str, after: str, objects_max: int) -> list[StoredObject]:
        raise NotImplementedError

    def delete_older(self, key: str, before_ms: int) -> bool:
        raise NotImplementedError

    def delete_unfinished(self, before_ms: int) -> int:
        raise NotImplementedError
