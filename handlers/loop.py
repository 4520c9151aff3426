"""The loop that runs every handler: one thread, one consumer, one transaction per batch.

    1. consume up to batch_items / batch_wait_ms; a batch mixes partitions
    2. BEGIN; the handler loads, decides, saves
    3. UPDATE handler_progress to the next offsets with the encoded outputs, WHERE next_offset is what this owner stored
       last; a row that is not there any more: another owner has the partition, roll back and leave (fence)
    4. wait for the acks of the previous batch's outputs, at most acks_wait_ms; COMMIT
    5. produce this batch's outputs
    6. tell the stream how far we are, for lag tools only

    on assign: the offset must belong to the log that is there now (below); produce the stored outputs again, byte for byte,
    wait for their acks, start at next_offset
    when idle: clear the journal once its outputs are acknowledged, so that an old one is not replayed much later

What dies where: before COMMIT nothing has happened; after COMMIT and before or during 5 the stored outputs are produced by
the next owner on assign; after 5 they are produced once more, and whoever reads them drops the repeat by state. All outputs
of a batch stand in the row of its first partition, so whoever gets that partition replays all of them.

A log that began anew: every progress row remembers which log its offset belongs to. When the topic was deleted and made
again, or stands on another cluster, the handler stops on assignment and says what the two ways on are; it reads nothing, for
an offset of another log would skip or repeat whatever happens to stand there (`bulk-switch redrive --new-log`).

Trouble: a lost key race, a deadlock or SlowDown retries the batch after a pause; a database, stream or fence that fails ends
the session, and a new one begins with the assignment (`run`); BadMessage or a bug is bisected in savepoints down to the
message that causes it, which becomes a dead letter within its limit; Crash ends the process.
"""

import logging
import random
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from db.slots import InstanceSlot
from handlers.batch import Batch
from handlers.dead_letters import DeadLetterLimit
from handlers.handler import Crash, Handler, SlowDown, TooMuch
from handlers.metrics import LoopMetrics
from handlers.session import SESSION_TROUBLE, Fenced, LoopLimits, Session, first_line
from handlers.tracing import Tracing
from stream.interface import (
    Consumer,
    OffsetOutOfRange,
    OnAssign,
    OnRevoke,
    Partition,
    Stream,
    StreamUnavailable,
)
from stream.ticks import TICK_TOPIC

__all__ = ["HandlerLoop", "LoopLimits", "OpenConsumer"]

_log = logging.getLogger(__name__)


# Joins the group of the handler as the given instance number, with the callbacks for what it wins and loses.
OpenConsumer = Callable[[int, OnAssign, OnRevoke], Consumer]


# SQLSTATE of what the next attempt of the same batch can mend: serialization failure, deadlock, lock not available …
_RETRY_STATES = frozenset({"40001", "40P01", "55P03"})
# … and a step that another transaction took first.
_UNIQUE_VIOLATION = "23505"


class HandlerLoop:
    """Runs one handler until `stop`; `run` returns then, or raises Crash (or a bug's exception)."""

    def __init__(
        self,
        handler: Handler,
        engine: Engine,
        stream: Stream,
        limits: LoopLimits,
        open_consumer: OpenConsumer,
        tracing: Tracing | None = None,
    ) -> None:
        self.handler = handler
        self._engine = engine
        self._stream = stream
        self._open_consumer = open_consumer
        self._limits = limits
        self._stopping = threading.Event()
        self._dead_letter_limit = DeadLetterLimit(limits.dead_letters)
        self._session: Session | None = None
        self._metrics = LoopMetrics(handler.name)
        self._tracing = tracing
        # When the loop last turned, for those who ask whether it is alive (time.monotonic()).
        self.last_turn_s = time.monotonic()
        self._trimmed_s = time.monotonic()
        self._asked_for_slot_s = 0.0

    def stop(self) -> None:
        """Finish the batch at hand, wait for its acks, leave. Safe from any thread and from a signal handler."""
        self._stopping.set()

    def owned(self) -> frozenset[Partition]:
        """The partitions that this loop reads now."""
        session = self._session
        return frozenset() if session is None else session.consumer.owned()

    def is_spare(self) -> bool:
        """Whether there are more instances than partitions, so that whoever owns none waits for one of the others to go."""
        session = self._session
        return session is not None and session.instances > session.partitions

    def run(self) -> None:
        """Session after session until stopped; a session that fails is followed by another one after a pause."""
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._run_session()
                failures = 0
            except SESSION_TROUBLE as trouble:
                # A session that ran for a while was healthy: its end does not count as one more failure in a row.
                failures = 1 if time.monotonic() - began > self._limits.pause_ms_max / 1000 else failures + 1
                self._metrics.session_ended()
                if isinstance(trouble, Fenced):
                    self._metrics.fenced()
                _log.warning(
                    "%s: session ended: %s",
                    self.handler.name,
                    first_line(trouble),
                    extra={"handler": self.handler.name},
                )
                self._pause(failures)
            except OffsetOutOfRange as gone:
                ways_on = "nothing is skipped in silence; `bulk-switch redrive --new-log` goes on with what the log has"
                raise Crash(f"{self.handler.name}: {gone}; {ways_on}") from gone

    def _run_session(self) -> None:
        with InstanceSlot(self._engine, self.handler.name) as slot:
            partitions = self._partitions()
            session = Session(self.handler, self._engine, self._stream.producer(), self._limits)
            session.metrics, session.tracing = self._metrics, self._tracing
            session.instances, session.partitions = slot.held(), partitions
            session.log_id = self._log_id
            session.consumer = self._open_consumer(slot.number, session.on_assign, session.on_revoke)
            self._session = session
            try:
                while not self._stopping.is_set():
                    self._ask_for_slot(session, slot)
                    self._turn(session)
                session.finish()
            finally:
                self._session = None
                session.close()

    def _ask_for_slot(self, session: "Session", slot: InstanceSlot) -> None:
        """Now and then: is the instance number still ours? An error ends the session; the next one takes another."""
        if time.monotonic() - self._asked_for_slot_s > self._limits.slot_check_interval_ms / 1000:
            session.instances, session.partitions = slot.held(), self._partitions()
            self._asked_for_slot_s = time.monotonic()

    def _partitions(self) -> int:
        # The clock is a partition of its own that no stream knows.
        return 1 if self.handler.topic == TICK_TOPIC else self._stream.partitions(self.handler.topic)

    def _log_id(self) -> str | None:
        # A tick is counted, not kept: the clock's numbers belong to no log.
        return None if self.handler.topic == TICK_TOPIC else self._stream.log_id(self.handler.topic)

    def _turn(self, session: "Session") -> None:
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
                self._metrics.retried("slow_down")
                _log.info("%s: slowing down: %s", self.handler.name, slow, extra=_place(self.handler.name, batch))
                if isinstance(slow, TooMuch):
                    batch = session.half_of(batch)
            except (*SESSION_TROUBLE, Crash, OffsetOutOfRange) as trouble:
                if not (isinstance(trouble, OperationalError) and _sqlstate(trouble) in _RETRY_STATES):
                    raise
                self._metrics.retried("database")
            except Exception as error:
                if isinstance(error, IntegrityError) and _sqlstate(error) == _UNIQUE_VIOLATION:
                    # Another transaction was quicker. A race that is lost again and again is none: then it is a bug.
                    batch.races_are_bugs = attempt > self._limits.batch_attempts_max // 2
                    batch.careful |= batch.races_are_bugs
                    self._metrics.retried("lost_race")
                elif batch.careful:
                    raise
                else:
                    self._metrics.bisected()
                    _log.exception(
                        "%s: a batch failed; looking for the message that does it",
                        self.handler.name,
                        extra=_place(self.handler.name, batch),
                    )
                    batch.careful = True
                    continue
            self._pause(attempt)
            if self._stopping.is_set():
                return
        raise StreamUnavailable(f"a batch did not succeed in {self._limits.batch_attempts_max} attempts")

    def _trim(self, session: "Session") -> None:
        self._trimmed_s = time.monotonic()
        # The clock keeps no records.
        if self.handler.topic != TICK_TOPIC:
            self._stream.trim_read(self.handler.topic, session.stored_offsets())

    def _pause(self, failures: int) -> None:
        bound = min(self._limits.pause_ms * 2 ** min(failures, 16), self._limits.pause_ms_max)
        self._stopping.wait(random.uniform(0.5, 1.0) * bound / 1000)  # noqa: S311 - jitter is no secret


def _place(handler: str, batch: Batch) -> dict[str, object]:
    """Where a batch begins, for its log lines."""
    first = batch.records[0]
    return {
        "handler": handler,
        "topic": first.partition.topic,
        "partition": first.partition.number,
        "offset": first.offset,
    }


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
