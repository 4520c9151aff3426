"""All payers together are bounded, the quiet ones last, and what stands unread in a topic bounds every edge."""

import asyncio
import threading

import pytest

from bulk_api_adapter.fspiop.limits import EdgeLimits
from db.in_flight import InFlightFigures
from domain.combinations import TOPIC_BULK_PREPARE
from tests.bulks import PAYEE, PAYER, STRANGER
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.test_edge import assert_refused
from tests.fspiop.test_in_flight import BoundedEdge, has_room

WAIT_S = 30
FSPS = frozenset({PAYER, PAYEE, STRANGER, "quietfsp"})
LIMITS = EdgeLimits(
    items_max=2,
    in_flight_transfers_per_payer_max=100,
    in_flight_single_transfers_min=0,
    in_flight_transfers_max=20,
    in_flight_single_transfers_of_all_min=4,
    unread_requests_max=6,
)


def edge_with(open_items: dict[str, int], stream: MemoryStream | None = None) -> BoundedEdge:
    figures = InFlightFigures(FSPS, open_items, {})
    return BoundedEdge(lambda *_: figures, stream or MemoryStream(), MemoryObjectStore(), LIMITS)


def test_past_the_bound_of_all_the_busy_are_refused_and_the_quiet_get_their_share() -> None:  # BULK-113
    edge = edge_with({PAYER: 9, STRANGER: 6})

    async def scenario() -> None:
        await edge.refresh()
        refused = await edge.bulk(PAYER)
        text = "15 transfers of all payers are in flight, with 2 more the limit of 16 is passed"
        assert_refused(refused, "2003", 503, text)
        assert int(refused.headers["retry-after"]) >= 1
        assert_refused(await edge.bulk(STRANGER), "2003", 503, "of all payers")
        # An even share of 20 among four is 5: what quietfsp takes counts for all the same.
        assert has_room(await edge.bulk("quietfsp"))
        assert has_room(await edge.bulk("quietfsp"))
        assert_refused(await edge.bulk("quietfsp"), "2003", 503, "19 transfers of all payers")
        # BULK-133: some places are for single transfers alone, also of the busy ones.
        assert has_room(await edge.single(PAYER))
        assert_refused(await edge.single(PAYER), "2003", 503, "of all payers")
        assert has_room(await edge.single("quietfsp"))

    asyncio.run(scenario())


def test_what_stands_unread_in_a_topic_is_seen_whoever_put_it_there() -> None:
    stream = MemoryStream()
    edge = edge_with({}, stream)
    # Another edge process, or a predecessor, has put six requests there.
    ends = {0: 6}
    stream.end_offsets = lambda topic: ends if topic == TOPIC_BULK_PREPARE else {0: 0}  # type: ignore[method-assign]

    async def scenario() -> None:
        await edge.refresh()
        assert_refused(await edge.bulk(), "2003", 503, "6 requests wait to be worked on")
        # Single transfers have a topic of their own.
        assert has_room(await edge.single())
        ends[0] = 5
        await edge.refresh()
        assert has_room(await edge.bulk())

    asyncio.run(scenario())


def test_a_stream_that_hangs_keeps_nobody_from_knowing_what_is_open() -> None:
    stream = MemoryStream()
    hangs = threading.Event()

    def end_offsets(topic: str) -> dict[int, int]:
        hangs.wait(WAIT_S)
        return {0: 0}

    stream.end_offsets = end_offsets  # type: ignore[method-assign]  # a stream that hangs
    limits = EdgeLimits(in_flight_ends_wait_ms=20)
    edge = BoundedEdge(lambda *_: InFlightFigures(FSPS, {}, {}), stream, MemoryObjectStore(), limits)

    async def scenario() -> None:
        for seconds in (0.0, 9.0, 18.0):
            edge.seconds = seconds
            await edge.refresh()
            assert has_room(await edge.bulk())
        hangs.set()
        await edge.refresh()

    asyncio.run(scenario())


def test_bounds_that_let_nothing_in_are_refused() -> None:
    with pytest.raises(ValueError, match="in_flight_transfers_max"):
        EdgeLimits(in_flight_transfers_max=50_000)
    with pytest.raises(ValueError, match="request_bytes_in_flight_max"):
        EdgeLimits(request_bytes_in_flight_max=20 * 1024 * 1024)
    with pytest.raises(ValueError, match="answers_in_flight_min"):
        EdgeLimits(answers_in_flight_min=64)
