"""The clock is just another partition: topic "tick", partition 0, a record per tick at consecutive offsets.

So a handler that acts on time runs in the same loop as all others: its progress row holds the number of the next tick, its
outputs are journalled with it, and a stale owner is fenced. Any number of processes may be members of the group; the one
whose session holds the advisory lock of the partition ticks, and when it is gone another takes over within
`membership_check_ms`. A tick carries nothing but its number and its time; ticks that nobody could take in time are
not made up for, because one look at the clock finds all that is due.
"""

import time
from collections.abc import Mapping

from sqlalchemy import Engine

from schemas.codec import codec
from schemas.messages import Tick
from stream.interface import Consumer, OnAssign, OnRevoke, Partition, Record, StreamUnavailable
from stream.session import GroupLocks, Session, open_session, unavailable, wait_for_notifications

TICK_TOPIC = "tick"
TICK = Partition(TICK_TOPIC, 0)


def tick_consumer(
    engine: Engine,
    group: str,
    tick_ms: int,
    on_assign: OnAssign,
    on_revoke: OnRevoke,
    *,
    membership_check_ms: int = 1_000,
) -> Consumer:
    """A member of the group that gets at most one tick per `tick_ms`, if it is the one that ticks."""
    return TickConsumer(engine, group, tick_ms, on_assign, on_revoke, membership_check_ms)


class TickConsumer:
    """Implements stream.interface.Consumer. Connects in the first `consume`; after an exception only `close` is left."""

    def __init__(
        self,
        engine: Engine,
        group: str,
        tick_ms: int,
        on_assign: OnAssign,
        on_revoke: OnRevoke,
        membership_check_ms: int,
    ) -> None:
        self._engine = engine
        self._group = group
        self._tick_s = tick_ms / 1000
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._check_s = membership_check_ms / 1000
        self._session: Session | None = None
        self._failed = False
        # The number of the next tick; None while another member ticks.
        self._next_offset: int | None = None
        # When the next tick is due, or the next try to become the one that ticks.
        self._due = 0.0

    def consume(self, records_max: int, timeout_ms: int) -> list[Record]:
        """One tick or none, whatever `records_max` allows."""
        if self._failed:
            raise StreamUnavailable(f"the clock of {self._group} failed before; only close is left")
        assert records_max >= 1
        try:
            with unavailable("tick"):
                return self._consume(time.monotonic() + timeout_ms / 1000)
        except StreamUnavailable:
            self._lose()
            raise
        except BaseException:
            self._failed = True
            raise

    def owned(self) -> frozenset[Partition]:
        return frozenset() if self._next_offset is None else frozenset({TICK})

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """A clock has no lag."""

    def close(self) -> None:
        session, self._session = self._session, None
        try:
            self._revoke(lost=session is None or session.closed)
        finally:
            if session is not None:
                session.close()

    def _consume(self, deadline: float) -> list[Record]:
        session = self._session or self._connect()
        while True:
            if time.monotonic() >= self._due:
                if self._next_offset is None and not self._take():
                    self._due = time.monotonic() + self._check_s
                else:
                    return [self._tick()]
            wait_s = min(deadline, self._due) - time.monotonic()
            # Nothing is listened to: this is a sleep that ends with StreamUnavailable when the session does.
            wait_for_notifications(session, wait_s)
            if time.monotonic() >= deadline:
                return []

    def _connect(self) -> Session:
        self._session = open_session(self._engine)
        self._locks = GroupLocks(self._session, self._group, TICK_TOPIC)
        return self._session

    def _take(self) -> bool:
        if self._locks.try_own([TICK.number]):
            self._next_offset = self._on_assign([TICK])[TICK]
        return self._next_offset is not None

    def _tick(self) -> Record:
        assert self._next_offset is not None
        at_ms = time.time_ns() // 1_000_000
        record = Record(TICK, self._next_offset, b"", codec(Tick).encode([Tick(at_ms)]), at_ms)
        self._next_offset += 1
        # From now on, not from when it was due: a reader that was slow gets no burst of ticks.
        self._due = time.monotonic() + self._tick_s
        return record

    def _lose(self) -> None:
        self._failed = True
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._revoke(lost=True)

    def _revoke(self, *, lost: bool) -> None:
        if self._next_offset is not None:
            self._next_offset = None
            self._on_revoke([TICK], lost)
