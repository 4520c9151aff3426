"""A member of a group as the loop is one: it keeps progress per partition, shared with the others of its group."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from stream.interface import Consumer, OnAssign, OnRevoke, Partition, Record, Stream

DEADLINE_S = 90


class Reader:
    """Reads with `turn`; `progress` is what handler_progress is for the loop."""

    def __init__(self, open_consumer: Callable[[OnAssign, OnRevoke], Consumer], progress: dict[int, int]) -> None:
        self.progress = progress
        self.records: list[Record] = []
        self.assigned: list[list[int]] = []
        self.revoked: list[tuple[list[int], bool]] = []
        self.consumer = open_consumer(self._on_assign, self._on_revoke)

    def turn(self, records_max: int = 100, timeout_ms: int = 20) -> list[Record]:
        records = self.consumer.consume(records_max, timeout_ms)
        for record in records:
            # What is read is exactly what comes next, and only of partitions that are owned.
            assert record.offset == self.progress.get(record.partition.number, 0)
            assert record.partition in self.consumer.owned()
            self.progress[record.partition.number] = record.offset + 1
        self.records += records
        self.consumer.commit({record.partition: record.offset + 1 for record in records})
        return records

    def owned(self) -> set[int]:
        return {partition.number for partition in self.consumer.owned()}

    def _on_assign(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        self.assigned.append(sorted(partition.number for partition in partitions))
        return {partition: self.progress.get(partition.number, 0) for partition in partitions}

    def _on_revoke(self, partitions: list[Partition], lost: bool) -> None:
        self.revoked.append((sorted(partition.number for partition in partitions), lost))


class Readers:
    """Makes readers and closes them at the end, whatever becomes of the test."""

    def __init__(self) -> None:
        self._made: list[Reader] = []

    def of(
        self,
        stream: Stream,
        topic: str,
        instance: int = 0,
        progress: dict[int, int] | None = None,
        group: str = "handler",
    ) -> Reader:
        return self.made_by(partial(stream.consumer, group, topic, instance), {} if progress is None else progress)

    def made_by(self, open_consumer: Callable[[OnAssign, OnRevoke], Consumer], progress: dict[int, int]) -> Reader:
        reader = Reader(open_consumer, progress)
        self._made.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._made:
            reader.consumer.close()


def turn_until(readers: Sequence[Reader], done: Callable[[], bool]) -> None:
    """Let the readers take turns until the condition holds; no partition is ever read by two of them."""
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, [(reader.owned(), len(reader.records)) for reader in readers]
        for reader in readers:
            reader.turn()
            owned = [number for one in readers for number in one.owned()]
            assert len(owned) == len(set(owned)), owned
