"""Reading the table stream as a member of a group.

A member is a session that holds the advisory lock of its instance; which members live is read from pg_locks when one
joins, leaves or gives a partition away (they notify each other), and once per `membership_check_ms` besides, because
the dead do not notify. A member's share follows from that list alone: the instance of rank r among m owns the partitions
p with p % m == r. First what is no longer its share is revoked and unlocked, then what is its share and free is locked
and assigned; so a partition has one owner at any time, and nobody waits for a lock. How many partitions there are is read
with it: those that were added are shared out at the next look.

A `consume` with something to read is one statement for all owned partitions. When there is nothing it waits for the
topic's notification, and looks anyway once per `membership_check_ms`. An idle member costs next to nothing.

Offsets of a partition are consecutive, which is checked: a record that is not the one wanted means that the log was
trimmed under its reader, OffsetOutOfRange. After any exception the consumer can only be closed. When its session is lost
(or the process stands still for long enough to lose it) the partitions are revoked as lost, because another member owns
them by then; what is written after that is stopped by the fence in handler_progress.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Engine

from stream.interface import OffsetOutOfRange, OnAssign, OnRevoke, Partition, Record, StreamUnavailable, UnknownTopic
from stream.session import GroupLocks, Session, listen, open_session, unavailable, wait_for_notifications

MEMBERS_CHANGED = "members"

# The inner LIMIT ends the walk of one partition, the outer one the walk over the partitions; the running sum bounds the
# bytes, and lets a single larger record through. Within a partition the order is that of the index.
_FETCH = """
    SELECT wanted.partition, found.record_offset, found.key, found.value, found.headers, found.timestamp_ms
    FROM unnest(CAST(%b AS int4[]), CAST(%b AS int8[])) AS wanted(partition, next_offset)
    CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT record_offset, key, value, headers,
                   CAST(extract(epoch FROM appended_date) * 1000 AS int8) AS timestamp_ms,
                   sum(octet_length(value)) OVER (ORDER BY record_offset ROWS UNBOUNDED PRECEDING) AS bytes
            FROM stream_record
            WHERE topic = %s AND partition = wanted.partition AND record_offset >= wanted.next_offset
            ORDER BY record_offset LIMIT %s
        ) AS walked
        WHERE bytes - octet_length(value) < %s
        ORDER BY record_offset
    ) AS found
    LIMIT %s
    """

_RANGES = """
    SELECT partition, start_offset, end_offset FROM stream_partition
    WHERE topic = %s AND partition = ANY(CAST(%s AS int4[]))
    """

_PARTITIONS = "SELECT partitions FROM stream_topic WHERE topic = %s"
_NOTIFY = "SELECT pg_notify(%s, %s)"
_LEAVE = "SELECT pg_advisory_unlock_all(), pg_notify(%s, %s)"


def record_of(
    partition: Partition, offset: int, key: bytes, value: bytes, headers: list[list[str]] | None, timestamp_ms: int
) -> Record:
    """A row as a record; headers stand in the table as a JSON array of name and hexadecimal value."""
    pairs = tuple((name, bytes.fromhex(text)) for name, text in headers) if headers else ()
    return Record(partition, offset, key, value, timestamp_ms, pairs)


class TableConsumer:
    """Implements stream.interface.Consumer. Connects and joins the group in the first `consume`."""

    def __init__(
        self,
        engine: Engine,
        *,
        channel: str,
        group: str,
        topic: str,
        instance: int,
        on_assign: OnAssign,
        on_revoke: OnRevoke,
        membership_check_ms: int,
        fetch_bytes_max: int,
    ) -> None:
        self._engine = engine
        self._channel = channel
        self._group = group
        self._topic = topic
        self._instance = instance
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._check_s = membership_check_ms / 1000
        self._fetch_bytes_max = fetch_bytes_max
        self._session: Session | None = None
        self._joined = False
        self._failed = False
        # The next offset of each owned partition; the first key is the partition that is read first next time.
        self._positions: dict[int, int] = {}
        self._names: dict[int, Partition] = {}
        self._next_check = 0.0
        # Whether there may be something to read: not after an empty fetch, until a notification or the next check.
        self._look = True

    def consume(self, records_max: int, timeout_ms: int) -> list[Record]:
        if self._failed:
            raise StreamUnavailable(f"{self._group} failed on {self._topic} before; only close is left")
        try:
            with unavailable(f"read {self._topic}"):
                return self._consume(records_max, time.monotonic() + timeout_ms / 1000)
        except StreamUnavailable:
            self._lose()
            raise
        except BaseException:
            # Positions may have moved past records that nobody got to see.
            self._failed = True
            raise

    def owned(self) -> frozenset[Partition]:
        # A copy, made in one step: those who ask whether a process is ready do so from another thread.
        return frozenset(self._names[number] for number in self._positions.copy())

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """handler_progress in the same database says how far a handler is; a second place would only differ."""

    def close(self) -> None:
        session, self._session = self._session, None
        try:
            if self._positions:
                self._forget(list(self._positions), lost=session is None or session.closed)
        finally:
            if session is not None:
                self._leave(session)

    def _consume(self, records_max: int, deadline: float) -> list[Record]:
        session = self._session or self._connect()
        while True:
            now = time.monotonic()
            if now >= self._next_check:
                self._check_membership(session)
                self._next_check = now + self._check_s
                self._look = True
            if self._look and self._positions:
                records = self._fetch(session, records_max)
                if records:
                    return records
                self._look = False
            payloads = wait_for_notifications(session, min(deadline, self._next_check) - time.monotonic())
            for payload in payloads:
                self._notice(payload)
            if time.monotonic() >= deadline and not (payloads and self._look and self._positions):
                return []

    def _connect(self) -> Session:
        session = open_session(self._engine)
        self._session = session
        self._locks = GroupLocks(session, self._group, self._topic)
        # Listening begins before the first look, so that nothing is appended unnoticed in between.
        listen(session, self._channel)
        return session

    def _notice(self, payload: str) -> None:
        if payload == MEMBERS_CHANGED:
            self._next_check = 0.0
        elif not payload or any(int(number) in self._positions for number in payload.split(",")):
            self._look = True

    def _fetch(self, session: Session, records_max: int) -> list[Record]:
        partitions, offsets = list(self._positions), list(self._positions.values())
        bytes_max = self._fetch_bytes_max // len(partitions)
        parameters = (partitions, offsets, self._topic, records_max, bytes_max, records_max)
        with session.cursor(binary=True) as cursor:
            rows = cursor.execute(_FETCH, parameters).fetchall()
        records = [self._next(*row) for row in rows]
        # What was read last is read last next time, so that one busy partition does not starve the others.
        if rows:
            first = rows[0][0]
            self._positions[first] = self._positions.pop(first)
        return records

    def _next(self, number: int, offset: int, *columns: Any) -> Record:
        if offset != self._positions[number]:
            raise self._out_of_range(number, offset)
        self._positions[number] = offset + 1
        return record_of(self._names[number], offset, *columns)

    def _check_membership(self, session: Session) -> None:
        # Read again at every look, because partitions may be added while we read.
        counted = session.execute(_PARTITIONS, (self._topic,)).fetchone()
        if counted is None:
            raise UnknownTopic(self._topic)
        if not self._joined:
            self._joined = self._locks.try_join(self._instance)
            if not self._joined:
                return
            session.execute(_NOTIFY, (self._channel, MEMBERS_CHANGED))
        instances = self._locks.instances()
        rank = instances.index(self._instance)
        share = {number for number in range(counted[0]) if number % len(instances) == rank}
        going = [number for number in self._positions if number not in share]
        if going:
            self._forget(going, lost=False)
            self._locks.release(going)
            session.execute(_NOTIFY, (self._channel, MEMBERS_CHANGED))
        won = self._locks.try_own(share - self._positions.keys())
        if won:
            self._take(won)
        self._check_ranges(session)

    def _take(self, numbers: Iterable[int]) -> None:
        names = {number: Partition(self._topic, number) for number in numbers}
        offsets = self._on_assign(list(names.values()))
        self._names.update(names)
        self._positions.update({number: offsets[name] for number, name in names.items()})

    def _forget(self, numbers: list[int], *, lost: bool) -> None:
        names = [self._names[number] for number in numbers]
        for number in numbers:
            del self._positions[number]
        self._on_revoke(names, lost)

    def _check_ranges(self, session: Session) -> None:
        """Find a reader that waits for what will never come: at an offset behind the end, or at one that was trimmed."""
        for number, start, end in session.execute(_RANGES, (self._topic, list(self._positions))):
            if not start <= self._positions[number] <= end:
                raise self._out_of_range(number, start if self._positions[number] < start else end)

    def _out_of_range(self, number: int, offset: int) -> OffsetOutOfRange:
        wanted = self._positions[number]
        verb = "begins" if wanted < offset else "ends"
        return OffsetOutOfRange(
            f"{self._group} wants offset {wanted} of {self._topic}/{number}, whose log {verb} at {offset}"
        )

    def _lose(self) -> None:
        """The session is gone or of no use: end it, so that the partitions are free, and say that they are lost."""
        self._failed = True
        session, self._session = self._session, None
        if session is not None:
            session.close()
        if self._positions:
            self._forget(list(self._positions), lost=True)

    def _leave(self, session: Session) -> None:
        try:
            with unavailable("leave"):
                session.execute(_LEAVE, (self._channel, MEMBERS_CHANGED))
        except StreamUnavailable:
            # The session is gone, and its locks with it; nobody has to be told.
            pass
        finally:
            session.close()
