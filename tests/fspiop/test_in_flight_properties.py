"""Whatever comes, is acknowledged, fails and is read in whatever order: what is in flight is never counted too low."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from bulk_api_adapter.fspiop.in_flight import InFlightBound
from bulk_api_adapter.fspiop.limits import EdgeLimits
from db.in_flight import InFlightFigures
from domain.combinations import TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE
from schemas.fspiop.errors import Refusal
from stream.interface import StreamUnavailable, partition_of
from tests.bulks import PAYER
from tests.fspiop.fakes import MemoryStream


class Log(MemoryStream):
    """Topics of three partitions that only count, for a model of what handlers have read."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {topic: [0, 0, 0] for topic in (TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE)}

    def end_offsets(self, topic: str) -> dict[int, int]:
        if self.down:
            raise StreamUnavailable("no broker answers")
        return dict(enumerate(self.ends[topic]))


@dataclass
class Posted:
    """One request of the model; its offset is known when it is acknowledged."""

    topic: str
    partition: int
    items: int
    context: Any
    offset: int | None = None


@settings(max_examples=200)
@given(st.data())
def test_what_is_unread_is_never_missed_and_all_of_it_is_given_back(data: st.DataObject) -> None:
    """Random receipts, acknowledgements, failures, reads and readings: never counted too low, in the end at nothing."""
    log = Log()
    read: dict[tuple[str, int], int] = {}
    database_is_away = False

    def figures(*_: object) -> InFlightFigures:
        if database_is_away:
            raise OperationalError("SELECT", {}, ConnectionError("the database is away"))
        return InFlightFigures(frozenset({PAYER}), {}, dict(read))

    bound = InFlightBound(
        figures, log, EdgeLimits(in_flight_transfers_per_payer_max=1_000_000, in_flight_ends_wait_ms=60_000)
    )
    pending: list[Posted] = []
    published: list[Posted] = []

    def finish(one: Posted, acknowledged: bool) -> None:
        if acknowledged:
            one.offset = log.ends[one.topic][one.partition]
            log.ends[one.topic][one.partition] += 1
            published.append(one)
            one.context.close()
        else:
            with pytest.raises(StreamUnavailable), one.context:
                raise StreamUnavailable("not acknowledged")

    def unread() -> int:
        kept = (one for one in published if read.get((one.topic, one.partition), 0) <= (one.offset or 0))
        return sum(one.items for one in [*pending, *kept])

    async def scenario() -> None:
        nonlocal database_is_away
        await bound.refresh()
        for action in data.draw(
            st.lists(st.sampled_from(["post", "ack", "fail", "read", "look", "stream", "database"]), max_size=40)
        ):
            if action == "post":
                topic, key = data.draw(st.sampled_from(sorted(log.ends))), data.draw(st.binary(min_size=1, max_size=2))
                items = data.draw(st.integers(1, 5))
                context = ExitStack()
                context.enter_context(bound.counted(PAYER, topic, key, items))
                pending.append(Posted(topic, partition_of(key, 3), items, context))
            elif action in {"ack", "fail"} and pending:
                finish(pending.pop(data.draw(st.integers(0, len(pending) - 1))), action == "ack")
            elif action == "read":
                place = data.draw(st.sampled_from(sorted(log.ends))), data.draw(st.integers(0, 2))
                read[place] = data.draw(st.integers(read.get(place, 0), log.ends[place[0]][place[1]]))
            elif action == "stream":
                log.down = not log.down
            elif action == "database":
                database_is_away = not database_is_away
            elif action == "look":
                await bound.refresh()
            assert counted(bound) >= unread()
        for one in pending:
            finish(one, True)
        log.down = database_is_away = False
        read.update({(topic, number): end for topic, ends in log.ends.items() for number, end in enumerate(ends)})
        await bound.refresh()
        assert counted(bound) == 0

    asyncio.run(scenario())
    bound.close()


def counted(bound: InFlightBound) -> int:
    """What the bound says is in flight of the payer, as its refusal tells it."""
    with (
        pytest.raises(Refusal, match="of your transfers are in flight") as refused,
        bound.counted(PAYER, "", b"", 10**9),
    ):
        pass
    return int(refused.value.error.description.split(" - ")[1].split(" ")[0])


def test_a_handler_that_stands_still_costs_no_memory_without_end() -> None:
    log = Log()
    read: dict[tuple[str, int], int] = {}
    bound = InFlightBound(
        lambda *_: InFlightFigures(frozenset({PAYER}), {}, read), log, EdgeLimits(in_flight_ends_wait_ms=60_000)
    )

    async def scenario() -> None:
        await bound.refresh()
        for number in range(1_000):
            with bound.counted(PAYER, TOPIC_BULK_PREPARE, b"the same key", 1):
                pass
            log.ends[TOPIC_BULK_PREPARE] = [number + 1] * 3
            await bound.refresh()
        assert counted(bound) == 1_000
        assert sum(len(marks) for marks in bound._marks.values()) == 64
        # What was put together is given back together, not before the last of it is read.
        for offset, least in ((10, 990), (999, 1), (1_000, 0)):
            read.update({(TOPIC_BULK_PREPARE, partition): offset for partition in range(3)})
            await bound.refresh()
            assert least <= counted(bound) <= (937 if offset == 999 else least)

    asyncio.run(scenario())
    bound.close()
