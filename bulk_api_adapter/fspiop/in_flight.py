"""How many transfers each payer, and all of them, may have in flight (BULK-113); past it POSTs are answered with 503/2003.

In flight of a payer, an FSPIOP-Source, are

    open       the items of its bulks and its single transfers that have not ended: the database says so
    unread     what this process has taken in for it and no handler has read yet: this module remembers it

Open figures are read every `in_flight_refresh_ms`, on a thread of their own and never for a request; a request counts as
unread from before it is kept, so that no burst slips through between two readings, and is given back when keeping it
fails. An acknowledged request lies before the end of its partition. That end is asked for with the next reading, and the
request is unread until the handler's progress row has passed it. No clock is compared with another one. The progress rows
and the open figures are of one snapshot, so a request is never missing from both; for up to two readings it may be in both.
A stream that does not say its ends within `in_flight_ends_wait_ms` keeps nobody from knowing what is open.

Some of a payer's places are for single transfers alone (`in_flight_single_transfers_min`): bulks that it queues without end
must not keep out its single transfers, which do not wait behind them (BULK-133). Then, of the same figures:

    per payer   past `in_flight_transfers_per_payer_max` the payer is refused, and nobody else
    of all      past `in_flight_transfers_max` a payer is refused that has more than its even share of it; so the busy ones
                make room for each other, and one that sends little is let in
    unread      past `unread_requests_max` records that stand unread in one of the two topics, no more goes there: those
                records are of all edge processes, of predecessors, and of requests that were answered 503 and arrived

Handlers that stand still let the unread grow until the payers' bounds are reached. That is the back-pressure, and it ends by
itself when they read on. While the database is away its last figures count for `in_flight_stale_ms`; after that, and until
the first figures are there, every POST is answered with 503/2003, before its body is read: no handler could work either. GET
and PUT go on.

What is not seen in items: the unread of other edge processes, and what this process took in before it was restarted. The
first two bounds may be passed by that much until the handlers have read it, the third one counts it. Whoever takes no part
shares one bound with all others who do not, so that made-up names cost no memory.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from bulk_api_adapter.bounded_threads import BoundedThreads
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.retry_after import RetryAfter
from db.in_flight import InFlightFigures
from domain.combinations import TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE
from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal
from schemas.topics import CATALOGUE
from stream.interface import Stream, StreamError, partition_of

logger = logging.getLogger(__name__)

# No FSP has an empty name, so this is free for those who take no part.
_STRANGERS: Final = ""
_TOPICS: Final = (TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE)
_HANDLERS: Final = tuple((CATALOGUE[topic].consumer, topic) for topic in _TOPICS)
# (handler, topic) pairs and the milliseconds that a statement may take: `db.in_flight.in_flight_figures` on an engine.
ReadFigures = Callable[[Sequence[tuple[str, str]], int], InFlightFigures]

# A handler that stands still for long leaves one of these per reading; beyond, new ones are added to the newest.
_MARKS_MAX: Final = 64


class InFlight(Protocol):
    """Whether a payer may have more in flight."""

    def require_known(self) -> None:
        """Raises Refusal when nobody could be counted now, so that no body is read for that; counts nothing."""

    @contextmanager
    def counted(self, source: str, topic: str, key: bytes, items: int) -> Iterator[None]:
        """Count a request's items while it is kept and published, and afterwards if that succeeds; raises Refusal."""


class Unbounded:
    """Every payer may have as much in flight as it likes."""

    def require_known(self) -> None:
        pass

    @contextmanager
    def counted(self, source: str, topic: str, key: bytes, items: int) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class _Acknowledged:
    """A request that is on its topic; where it stands there is not looked up yet."""

    payer: str
    topic: str
    key: bytes
    items: int


@dataclass(slots=True)
class _Mark:
    """Items that a handler has read when its next offset is this one."""

    offset: int
    items: int


@dataclass(frozen=True, slots=True)
class _Look:
    """One reading: the figures, and per topic where each partition ended before they were read."""

    figures: InFlightFigures
    ends: Mapping[str, Mapping[int, int]]


class InFlightBound:
    """Counts on one event loop; `running` keeps its figures fresh."""

    def __init__(
        self,
        read_figures: ReadFigures,
        stream: Stream,
        limits: EdgeLimits,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_figures = read_figures
        self._stream = stream
        self._limits = limits
        self._monotonic_s = monotonic_s
        self._retry_after = RetryAfter(limits.retry_after_s_max, monotonic_s=monotonic_s)
        self._threads = BoundedThreads(1, "in-flight")
        # Of its own, because a stream that hangs must not keep the database's figures from being read.
        self._stream_threads = BoundedThreads(1, "ends")
        self._figures: InFlightFigures | None = None
        self._figures_s = 0.0
        self._open_of_all = 0
        self._failing = False
        # All of a payer's unread: what is being kept, what is acknowledged, and what stands in `_marks`; and of all payers.
        self._unread: Counter[str] = Counter()
        self._unread_of_all = 0
        # Per topic the records that no handler has read, as of the last reading that both sides answered.
        self._unread_requests: dict[str, int] = {}
        self._acknowledged: list[_Acknowledged] = []
        self._marks: dict[tuple[str, str, int], deque[_Mark]] = {}

    def require_known(self) -> None:
        self._fresh_figures()

    @contextmanager
    def counted(self, source: str, topic: str, key: bytes, items: int) -> Iterator[None]:
        figures = self._fresh_figures()
        payer = source if source in figures.participants else _STRANGERS
        own = figures.open_items.get(payer, 0) + self._unread[payer]
        self._require_room_of_its_own(payer, topic, own, items)
        self._require_room_beside_others(figures, topic, own, items)
        self._require_readers(topic)
        self._unread[payer] += items
        self._unread_of_all += items
        try:
            yield
        except BaseException:
            self._give_back(payer, items)
            raise
        self._acknowledged.append(_Acknowledged(payer, topic, key, items))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the figures once, then for as long as the block lasts."""
        # The first requests should not be refused because they came before the first figures; but a database that is
        # away must not keep the edge from starting.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.in_flight_stale_ms / 1000):
                await self.refresh()
        task = asyncio.create_task(self._refresh_for_ever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.close()

    async def refresh(self) -> None:
        """Read the figures now, and forget what handlers have read; a failure leaves the last figures."""
        acknowledged, self._acknowledged = self._acknowledged, []
        began_s = self._monotonic_s()
        try:
            look = await self._look()
        except BaseException as error:
            self._acknowledged = acknowledged + self._acknowledged
            if not isinstance(error, Exception):
                raise
            self._failed(error)
            return
        self._mark(acknowledged, look.ends)
        self._forget_read(look.figures.next_offsets)
        self._figures, self._figures_s = look.figures, began_s
        self._open_of_all = sum(look.figures.open_items.values())
        for topic, ends in look.ends.items():
            self._unread_requests[topic] = _unread_records(topic, ends, look.figures)
        if self._failing:
            self._failing = False
            logger.info("what payers have in flight is known again")

    def close(self) -> None:
        """End the threads."""
        self._threads.close()
        self._stream_threads.close()

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._limits.in_flight_refresh_ms / 1000)
            await self.refresh()

    async def _look(self) -> _Look:
        """The ends come first: what lies before them has been read when the figures say so."""
        ends: Mapping[str, Mapping[int, int]] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.in_flight_ends_wait_ms / 1000):
                ends = await self._stream_threads.run(self._ends)
        figures = await self._threads.run(lambda: self._read_figures(_HANDLERS, self._limits.in_flight_stale_ms))
        return _Look(figures, ends)

    def _ends(self) -> Mapping[str, Mapping[int, int]]:
        """On the thread: per topic, where the stream says it, the ends of its partitions."""
        ends: dict[str, Mapping[int, int]] = {}
        for topic in _TOPICS:
            # A stream that is away keeps nobody from being told that he may send again.
            with suppress(StreamError):
                ends[topic] = self._stream.end_offsets(topic)
        return ends

    def _failed(self, error: Exception) -> None:
        """The database is away, or there is a bug: either way the figures grow stale, and that is what FSPs are told."""
        if not self._failing:
            self._failing = True
            bug = None if isinstance(error, SQLAlchemyError) else error
            logger.warning("what payers have in flight cannot be read: %s", error, exc_info=bug)

    def _fresh_figures(self) -> InFlightFigures:
        stale_ms = self._limits.in_flight_stale_ms
        if self._figures is None:
            raise self._full("figures", "what is in flight is not known yet, send it again")
        if self._monotonic_s() - self._figures_s > stale_ms / 1000:
            raise self._full("figures", f"what is in flight has not been known for {stale_ms} ms, send it again")
        self._retry_after.admitted("figures")
        return self._figures

    def _require_room_of_its_own(self, payer: str, topic: str, own: int, items: int) -> None:
        most = self._limits.in_flight_transfers_per_payer_max
        if topic == TOPIC_BULK_PREPARE:
            most -= self._limits.in_flight_single_transfers_min
        if own + items > most:
            text = f"{own} of your transfers are in flight, with {items} more the limit of {most} is passed"
            raise self._full(f"payer {payer}", text)
        self._retry_after.admitted(f"payer {payer}")

    def _require_room_beside_others(self, figures: InFlightFigures, topic: str, own: int, items: int) -> None:
        most = self._limits.in_flight_transfers_max
        # A bulk of the largest size is let in however many share the bound.
        share = max(most // max(1, len(figures.participants)), self._limits.items_max)
        if topic == TOPIC_BULK_PREPARE:
            most -= self._limits.in_flight_single_transfers_of_all_min
        of_all = self._open_of_all + self._unread_of_all
        if of_all + items > most and own + items > share:
            text = f"{of_all} transfers of all payers are in flight, with {items} more the limit of {most} is passed"
            raise self._full(f"all {topic}", text)
        self._retry_after.admitted(f"all {topic}")

    def _require_readers(self, topic: str) -> None:
        unread = self._unread_requests.get(topic, 0)
        if unread >= self._limits.unread_requests_max:
            raise self._full(f"unread {topic}", f"{unread} requests wait to be worked on, send it again")
        self._retry_after.admitted(f"unread {topic}")

    def _full(self, cause: str, text: str) -> Refusal:
        return Refusal(
            ErrorCode.SERVICE_UNAVAILABLE,
            text,
            retry_after_s=self._retry_after.refused(cause),
            reason=cause.partition(" ")[0],
        )

    def _mark(self, acknowledged: list[_Acknowledged], ends: Mapping[str, Mapping[int, int]]) -> None:
        for one in acknowledged:
            if one.topic not in ends:
                self._acknowledged.append(one)
                continue
            partition = partition_of(one.key, len(ends[one.topic]))
            self._add_mark((one.payer, one.topic, partition), ends[one.topic][partition], one.items)

    def _add_mark(self, place: tuple[str, str, int], offset: int, items: int) -> None:
        marks = self._marks.setdefault(place, deque())
        if marks and (marks[-1].offset == offset or len(marks) == _MARKS_MAX):
            marks[-1].offset = offset
            marks[-1].items += items
        else:
            marks.append(_Mark(offset, items))

    def _forget_read(self, next_offsets: Mapping[tuple[str, int], int]) -> None:
        for (payer, topic, partition), marks in list(self._marks.items()):
            while marks and marks[0].offset <= next_offsets.get((topic, partition), 0):
                self._give_back(payer, marks.popleft().items)
            if not marks:
                del self._marks[payer, topic, partition]

    def _give_back(self, payer: str, items: int) -> None:
        self._unread_of_all -= items
        self._unread[payer] -= items
        if not self._unread[payer]:
            del self._unread[payer]


def _unread_records(topic: str, ends: Mapping[int, int], figures: InFlightFigures) -> int:
    """The ends are older than the figures, so a handler may be ahead of them."""
    read = figures.next_offsets
    return sum(max(0, end - read.get((topic, partition), 0)) for partition, end in ends.items())
