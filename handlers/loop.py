"""The loop that runs every handler: one thread, one consumer, one transaction per batch.

    1. consume up to batch_items / batch_wait_ms; a batch mixes partitions
    2. BEGIN; the handler loads, decides, saves
    3. UPDATE handler_progress to the next offsets with the encoded outputs, WHERE next_offset is what this owner stored
       last; a row that is not there any more: another owner has the partition, roll back and leave (fence)
    4. wait for the acks of the previous batch's outputs, at most acks_wait_ms; COMMIT
    5. produce this batch's outputs
    6. tell the stream how far we are, for lag tools only

    on assign: produce the stored outputs again, byte for byte, wait for their acks, start at next_offset
    when idle: clear the journal once its outputs are acknowledged, so that an old one is not replayed much later

What dies where: before COMMIT nothing has happened; after COMMIT and before or during 5 the stored outputs are produced by
the next owner on assign; after 5 they are produced once more, and whoever reads them drops the repeat by state. All outputs
of a batch stand in the row of its first partition, so whoever gets that partition replays all of them.

Trouble: a lost key race, a deadlock or SlowDown retries the batch after a pause; a database, stream or fence that fails ends
the session, and a new one begins with the assignment (`run`); BadMessage or a bug is bisected in savepoints down to the
message that causes it, which becomes a dead letter within its limit; Crash ends the process.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from db.progress import Advance, advance, clear_outputs, load_progress
from db.slots import InstanceSlot
from handlers import journal
from handlers.batch import Batch, Careful, decode_record, split_off
from handlers.dead_letters import DeadLetterLimit, DeadLetterRules
from handlers.handler import Crash, Handler, Output, SlowDown
from stream.interface import (
    Consumer,
    NewRecord,
    OffsetOutOfRange,
    OnAssign,
    OnRevoke,
    Partition,
    Producer,
    Stream,
    StreamUnavailable,
)
from stream.ticks import TICK_TOPIC

_log = logging.getLogger(__name__)


# Joins the group of the handler as the given instance number, with the callbacks for what it wins and loses.
OpenConsumer = Callable[[int, OnAssign, OnRevoke], Consumer]


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
    dead_letters: DeadLetterRules = field(default_factory=DeadLetterRules)


class Fenced(Exception):
    """Another owner has stored progress for a partition that this loop thought its own."""


# What a new session can mend: the stream or the database was away, or somebody else owns what we thought ours.
_SESSION_TROUBLE = (StreamUnavailable, Fenced, OperationalError, InterfaceError)
# SQLSTATE of what the next attempt of the same batch can mend: serialization failure, deadlock, lock not available …
_RETRY_STATES = frozenset({"40001", "40P01", "55P03"})
# … and a step that another transaction took first.
_UNIQUE_VIOLATION = "23505"


class HandlerLoop:
    """Runs one handler until `stop`; `run` returns then, or raises Crash (or a bug's exception)."""

    def __init__(
        self, handler: Handler, engine: Engine, stream: Stream, limits: LoopLimits, open_consumer: OpenConsumer
    ) -> None:
        self.handler = handler
        self._engine = engine
        self._stream = stream
        self._open_consumer = open_consumer
        self._limits = limits
        self._stopping = threading.Event()
        self._dead_letter_limit = DeadLetterLimit(limits.dead_letters)
        self._session: _Session | None = None
        # When the loop last turned, for those who ask whether it is alive (time.monotonic()).
        self.last_turn_s = time.monotonic()
        self._trimmed_s = time.monotonic()

    def stop(self) -> None:
        """Finish the batch at hand, wait for its acks, leave. Safe from any thread and from a signal handler."""
        self._stopping.set()

    def owned(self) -> frozenset[Partition]:
        """The partitions that this loop reads now."""
        session = self._session
        return frozenset() if session is None else session.consumer.owned()

    def is_spare(self) -> bool:
        """Whether this instance has joined a group that has a member for every partition already."""
        session = self._session
        return session is not None and session.instance >= session.partitions

    def run(self) -> None:
        """Session after session until stopped; a session that fails is followed by another one after a pause."""
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._run_session()
                failures = 0
            except _SESSION_TROUBLE as trouble:
                # A session that ran for a while was healthy: its end does not count as one more failure in a row.
                failures = 1 if time.monotonic() - began > self._limits.pause_ms_max / 1000 else failures + 1
                _log.warning("%s: session ended: %s", self.handler.name, _first_line(trouble))
                self._pause(failures)
            except OffsetOutOfRange as gone:
                raise Crash(f"{self.handler.name}: {gone}; nothing is skipped in silence") from gone

    def _run_session(self) -> None:
        with InstanceSlot(self._engine, self.handler.name) as slot:
            partitions = self._partitions()
            session = _Session(self.handler, self._engine, self._stream.producer(), self._limits)
            session.instance, session.partitions = slot.number, partitions
            session.consumer = self._open_consumer(slot.number, session.on_assign, session.on_revoke)
            self._session = session
            try:
                while not self._stopping.is_set():
                    self._turn(session)
                session.finish()
            finally:
                self._session = None
                session.close()

    def _partitions(self) -> int:
        # The clock is a partition of its own that no stream knows.
        return 1 if self.handler.topic == TICK_TOPIC else self._stream.partitions(self.handler.topic)

    def _turn(self, session: "_Session") -> None:
        self.last_turn_s = time.monotonic()
        if self.last_turn_s - self._trimmed_s > self._limits.trim_interval_ms / 1000:
            self._trim(session)
        batch = session.next_batch()
        if batch is None:
            session.when_idle()
            return
        for attempt in range(1, self._limits.batch_attempts_max + 1):
            try:
                session.work(batch, self._dead_letter_limit)
                return
            except SlowDown as slow:
                _log.info("%s: slowing down: %s", self.handler.name, slow)
            except (*_SESSION_TROUBLE, Crash, OffsetOutOfRange) as trouble:
                if not (isinstance(trouble, OperationalError) and _sqlstate(trouble) in _RETRY_STATES):
                    raise
            except Exception as error:
                if isinstance(error, IntegrityError) and _sqlstate(error) == _UNIQUE_VIOLATION:
                    # Another transaction was quicker. A race that is lost again and again is none: then it is a bug.
                    batch.races_are_bugs = attempt > self._limits.batch_attempts_max // 2
                    batch.careful |= batch.races_are_bugs
                elif batch.careful:
                    raise
                else:
                    _log.exception("%s: a batch failed; looking for the message that does it", self.handler.name)
                    batch.careful = True
                    continue
            self._pause(attempt)
            if self._stopping.is_set():
                return
        raise StreamUnavailable(f"a batch did not succeed in {self._limits.batch_attempts_max} attempts")

    def _trim(self, session: "_Session") -> None:
        self._trimmed_s = time.monotonic()
        # The clock keeps no records.
        if self.handler.topic != TICK_TOPIC:
            self._stream.trim_read(self.handler.topic, session.stored_offsets())

    def _pause(self, failures: int) -> None:
        bound = min(self._limits.pause_ms * 2 ** min(failures, 16), self._limits.pause_ms_max)
        self._stopping.wait(random.uniform(0.5, 1.0) * bound / 1000)  # noqa: S311 - jitter is no secret


class _Session:
    """From one assignment to the next: a consumer, a producer, and the offsets this owner has stored."""

    consumer: Consumer
    instance: int
    partitions: int

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
        self._ahead: deque[Batch] = deque()
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
        return split_off(self._ahead, self._limits.batch_items)

    def work(self, batch: Batch, limit: DeadLetterLimit) -> None:
        """Steps 2 to 6 of the module's docstring for one batch, or for the first part of it if it writes too much.

        What is left of it is put back only once the first part is committed: an attempt that fails is made again with all.
        """
        rest: list[Batch] = []
        while True:
            # The numbers are those of the module's docstring.
            with self._engine.connect() as tx:  # 2.
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
            break
        self._next_offsets |= batch.next_offsets()
        self._ahead.extendleft(reversed(rest))
        if records:
            self._journals.add(batch.records[0].partition)
            self._producer.produce(records)  # 5.
        self.consumer.commit(batch.next_offsets())  # 6.

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
            except _SESSION_TROUBLE as trouble:
                _log.debug("%s: while leaving: %s", self._handler.name, _first_line(trouble))

    def _clear(self, partitions: set[Partition]) -> None:
        if not partitions:
            return
        self._producer.wait_for_acks(self._limits.acks_wait_ms)
        offsets = [(partition.number, self._next_offsets[partition]) for partition in partitions]
        with self._engine.begin() as tx:
            clear_outputs(tx, self._handler.name, self._handler.topic, offsets)
        self._journals -= partitions

    def on_assign(self, partitions: list[Partition]) -> Mapping[Partition, int]:
        with self._engine.begin() as tx:
            rows = load_progress(tx, self._handler.name, self._handler.topic, [one.number for one in partitions])
        by_number = {row.partition: row for row in rows}
        replay: list[NewRecord] = []
        for partition in partitions:
            row = by_number[partition.number]
            self._next_offsets[partition] = self._read_offsets[partition] = row.next_offset
            if row.outputs is not None:
                self._journals.add(partition)
                replay += journal.unpack(row.outputs)
        if replay:
            self._producer.produce(replay)
            self._producer.wait_for_acks(self._limits.acks_wait_ms)
        return {partition: self._next_offsets[partition] for partition in partitions}

    def on_revoke(self, partitions: list[Partition], lost: bool) -> None:
        gone = set(partitions)
        self._ahead = deque(batch for batch in self._ahead if batch.records[0].partition not in gone)
        if not lost:
            try:
                # The next owner need not replay what is known to have arrived.
                self._clear(self._journals & gone)
            except _SESSION_TROUBLE as trouble:
                _log.info("%s: the next owner will replay: %s", self._handler.name, _first_line(trouble))
        self._journals -= gone
        for partition in gone:
            self._next_offsets.pop(partition, None)
            self._read_offsets.pop(partition, None)


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
