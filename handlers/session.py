"""A session of a handler's loop: from one assignment to the next, with a consumer, a producer and the offsets it has stored.

The steps are those of the loop (handlers/loop.py), which makes a session, gives it batches to work on, and begins another
one when what ended it can be mended.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from db.progress import Advance, advance, clear_outputs, load_progress
from handlers import journal
from handlers.batch import Batch, Careful, decode_record, split_off
from handlers.dead_letters import DeadLetterLimit, DeadLetterRules
from handlers.handler import Crash, Handler, Output
from handlers.log_identity import require_same_log
from handlers.metrics import LoopMetrics
from handlers.tracing import Tracing, traced_batch
from stream.interface import (
    Consumer,
    NewRecord,
    Partition,
    Producer,
    StreamUnavailable,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """A limit on everything the loop holds or waits for."""

    batch_items: int = 1_000
    batch_wait_ms: int = 200
    batch_output_bytes_max: int = 16 * 1024 * 1024
    # Records are consumed ahead of the batch they will be in, never more than these.
    records_ahead_max: int = 200
    frame_messages_max: int = 250
    acks_wait_ms: int = 5_000
    # How often a batch is tried again within a session before the session is given up.
    batch_attempts_max: int = 20
    pause_ms: int = 20
    pause_ms_max: int = 2_000
    idle_journal_ms: int = 1_000
    # How often records that were read and are past their retention are forgotten, where the stream leaves it to us.
    trim_interval_ms: int = 60_000
    # How often the database is asked whether the instance number is still held, and how many instances there are.
    slot_check_interval_ms: int = 2_000
    dead_letters: DeadLetterRules = field(default_factory=DeadLetterRules)


class Fenced(Exception):
    """Another owner has stored progress for a partition that this loop thought its own."""


# What a new session can mend: the stream or the database was away, or somebody else owns what we thought ours.
SESSION_TROUBLE = (StreamUnavailable, Fenced, OperationalError, InterfaceError)


class Session:
    """From one assignment to the next: a consumer, a producer, and the offsets this owner has stored."""

    consumer: Consumer
    # How many processes run the handler, and how many of them can have work.
    instances: int
    partitions: int
    # Asks which log the topic is now.
    log_id: Callable[[], str | None]
    metrics: LoopMetrics
    tracing: Tracing | None

    def __init__(self, handler: Handler, engine: Engine, producer: Producer, limits: LoopLimits) -> None:
        self._handler = handler
        self._engine = engine
        self._limits = limits
        # What is stored, and how far was read ahead of it.
        self._next_offsets: dict[Partition, int] = {}
        self._read_offsets: dict[Partition, int] = {}
        # Partitions whose journal may still hold outputs, and since when nothing was read.
        self._journals: set[Partition] = set()
        self._idle_since_s: float | None = None
        # Whether a journal was not handed over as a whole, because the producer has failed.
        self._is_unsent = False
        self._ahead: deque[Batch] = deque()
        self._items_max = limits.batch_items
        self._producer = producer

    def stored_offsets(self) -> dict[int, int]:
        """Per owned partition the next offset as it stands in the progress row."""
        return {partition.number: offset for partition, offset in self._next_offsets.items()}

    def next_batch(self) -> Batch | None:
        """The records to work on next, up to `batch_items` of weight; None when nothing came within `batch_wait_ms`."""
        if not self._ahead:
            for record in self.consumer.consume(self._limits.records_ahead_max, self._limits.batch_wait_ms):
                # What was fetched before a rebalance may come out after it: not ours any more, or ours once more.
                if record.offset >= self._read_offsets.get(record.partition, record.offset + 1):
                    self._read_offsets[record.partition] = record.offset + 1
                    self._ahead.append(decode_record(self._handler, record))
        if not self._ahead:
            return None
        self._idle_since_s = None
        batch = split_off(self._ahead, self._items_max)
        self._items_max = min(2 * self._items_max, self._limits.batch_items)
        return batch

    def half_of(self, batch: Batch) -> Batch:
        """The first half of a batch that is too much now; the next ones are small, too, and grow again one by one."""
        if len(batch.records) == 1:
            return batch
        batch, later = batch.halves()
        self._ahead.extendleft(reversed(later))
        self._items_max = max(batch.weight, 1)
        return batch

    def work(self, batch: Batch, limit: DeadLetterLimit) -> None:
        """Steps 2 to 6 of the loop's docstring for one batch, or for the first part of it if it writes too much.

        What is left of it is put back only once the first part is committed: an attempt that fails is made again with all.
        """
        rest: list[Batch] = []
        while True:
            began_s = time.perf_counter()
            self.metrics.begin()
            # The numbers are those of the loop's docstring.
            with traced_batch(self.tracing, self._handler.name, batch), self._engine.connect() as tx:  # 2.
                outputs, bad = self._handle(tx, batch)
                records = journal.frames(outputs, self._limits.frame_messages_max)
                journalled = journal.pack(records)
                too_large = sum(len(record.value) for record in records) > self._limits.batch_output_bytes_max
                if too_large and len(batch.records) > 1:
                    tx.rollback()
                    batch, later = batch.halves()
                    rest = later + rest
                    continue
                self._store_progress(tx, batch, journalled)  # 3.
                limit.note(good=len(batch.messages) - bad, bad=bad + len(batch.undecodable))
                self._producer.wait_for_acks(self._limits.acks_wait_ms)  # 4.
                tx.commit()
            self.metrics.committed(
                len(batch.messages), time.perf_counter() - began_s, bad + len(batch.undecodable), outputs
            )
            break
        self._next_offsets |= batch.next_offsets()
        self._ahead.extendleft(reversed(rest))
        if records:
            self._journals.add(batch.records[0].partition)
            self._send(records)  # 5.
        self.consumer.commit(batch.next_offsets())  # 6.

    def _send(self, records: Sequence[NewRecord]) -> None:
        """Hand over what is committed; raises what ends the session, or Crash.

        A batch must not be tried again from here on: its second attempt would see only repeats, write nothing, and put its
        empty journal in the place of the one that is not on its way yet.
        """
        self._is_unsent = True
        try:
            self._producer.produce(records)
        except StreamUnavailable:
            raise
        except (OperationalError, InterfaceError) as error:
            # The table stream's database: under its own name the loop might take it for a race that a batch has lost.
            raise StreamUnavailable(f"a batch is committed and not sent: {first_line(error)}") from error
        except Exception as error:
            raise Crash(
                f"{self._handler.name}: a batch is committed and not sent, the next start sends it: {error}"
            ) from error
        self._is_unsent = False

    def _handle(self, tx: Connection, batch: Batch) -> tuple[Sequence[Output], int]:
        """The outputs of a batch, and how many of its decoded messages became dead letters."""
        if batch.careful or batch.undecodable:
            return Careful(self._handler, tx, races_are_bugs=batch.races_are_bugs).handle(batch)
        return self._handler.handle(tx, [entry.message for entry in batch.messages]), 0

    def _store_progress(self, tx: Connection, batch: Batch, journalled: bytes | None) -> None:
        # The first partition of the batch comes first here too: its row takes the journal.
        advances = [
            Advance(partition.number, self._next_offsets[partition], next_offset, batch.read_ms(partition))
            for partition, next_offset in batch.next_offsets().items()
        ]
        if advance(tx, self._handler.name, self._handler.topic, advances, journalled) != len(advances):
            tx.rollback()
            raise Fenced(
                f"{self._handler.name}: another owner has moved on with one of {[a.partition for a in advances]}"
            )

    def when_idle(self) -> None:
        """Clear the journals once nothing was read for a while: an old journal must not be replayed much later."""
        now = time.monotonic()
        if self._idle_since_s is None:
            self._idle_since_s = now
        if self._journals and now - self._idle_since_s > self._limits.idle_journal_ms / 1000:
            self._clear(self._journals)

    def finish(self) -> None:
        """The last batch is done: wait for its acks and clear the journals."""
        self._clear(set(self._journals))

    def close(self) -> None:
        """Leave the group; whatever fails here is mended by the next owner's assignment."""
        for closing in (self.consumer.close, self._producer.close):
            try:
                closing()
            except SESSION_TROUBLE as trouble:
                _log.debug(
                    "%s: while leaving: %s",
                    self._handler.name,
                    first_line(trouble),
                    extra={"handler": self._handler.name},
                )

    def _clear(self, partitions: set[Partition]) -> None:
        # What was never handed over is not waited for either: its journal is for the next owner.
        if not partitions or self._is_unsent:
            return
        self._producer.wait_for_acks(self._limits.acks_wait_ms)
        offsets = [(partition.number, self._next_offsets[partition]) for partition in partitions]
        with self._engine.begin() as tx:
            clear_outputs(tx, self._handler.name, self._handler.topic, offsets)
        self._journals -= partitions

    def on_assign(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        name, topic, log_id = self._handler.name, self._handler.topic, self.log_id()
        with self._engine.begin() as tx:
            rows = load_progress(tx, name, topic, [one.number for one in partitions], log_id)
        require_same_log(name, topic, rows, log_id)
        by_number = {row.partition: row for row in rows}
        replay: list[NewRecord] = []
        for partition in partitions:
            row = by_number[partition.number]
            self._next_offsets[partition] = self._read_offsets[partition] = row.next_offset
            if row.outputs is not None:
                self._journals.add(partition)
                replay += journal.unpack(row.outputs)
        if replay:
            self._send(replay)
            self._producer.wait_for_acks(self._limits.acks_wait_ms)
        return {partition: self._next_offsets[partition] for partition in partitions}

    def on_revoke(self, partitions: list[Partition], lost: bool) -> None:
        gone = set(partitions)
        self._ahead = deque(batch for batch in self._ahead if batch.records[0].partition not in gone)
        if not lost:
            try:
                # The next owner need not replay what is known to have arrived.
                self._clear(self._journals & gone)
            except SESSION_TROUBLE as trouble:
                _log.info(
                    "%s: the next owner will replay: %s",
                    self._handler.name,
                    first_line(trouble),
                    extra={"handler": self._handler.name},
                )
        self._journals -= gone
        for partition in gone:
            self._next_offsets.pop(partition, None)
            self._read_offsets.pop(partition, None)


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
