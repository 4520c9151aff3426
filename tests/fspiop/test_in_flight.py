"""What a payer has in flight is bounded for that payer alone, counted once, and free again when it has ended."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, text

from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.in_flight import InFlightBound
from bulk_api_adapter.fspiop.limits import EdgeLimits
from db.in_flight import InFlightFigures, in_flight_figures
from db.reference_data import HUB_NAME
from domain.combinations import TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE
from handlers.host import HandlerWorld, make_loop
from handlers.loop import LoopLimits
from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStore
from schemas.topics import CATALOGUE
from stream.interface import Stream, TopicDescription
from stream.table import TableStream
from tests.bulks import PAYEE, PAYER, STRANGER, bulk, item, provision
from tests.conftest import database_url_of
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.requests import error_body, headers, put_body, transfer_headers, transfer_post_body
from tests.fspiop.test_circuit import unread_body
from tests.fspiop.test_edge import assert_refused, encoded

WAIT_S = 30
# What is waited for on a real disk, with time.
LIMITS = EdgeLimits(
    items_max=2,
    in_flight_transfers_per_payer_max=6,
    in_flight_single_transfers_min=0,
    publish_wait_ms=30_000,
    in_flight_ends_wait_ms=30_000,
)


@dataclass
class BoundedEdge:
    """The app with its bound. `seconds` is the clock by which figures grow old."""

    read_figures: Callable[[Sequence[tuple[str, str]], int], InFlightFigures]
    stream: Stream
    store: ObjectStore
    limits: EdgeLimits = LIMITS
    seconds: float = 0.0
    in_flight: InFlightBound = field(init=False)
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        self.in_flight = InFlightBound(self.read_figures, self.stream, self.limits, monotonic_s=lambda: self.seconds)
        self.app = make_fspiop_app(self.stream, self.store, self.limits, in_flight=self.in_flight)

    async def bulk(self, source: str = PAYER, items: int = 2) -> httpx.Response:
        body = bulk([item() for _ in range(items)], now_ms=time.time_ns() // 1_000_000, payerFsp=source)
        return await self.send("POST", "/bulkTransfers", headers(fspiop_source=source), body)

    async def single(self, source: str = PAYER) -> httpx.Response:
        body = transfer_post_body() | {"transferId": str(uuid.uuid4()), "payerFsp": source}
        return await self.send("POST", "/transfers", transfer_headers(fspiop_source=source), body)

    async def send(self, method: str, path: str, sent: Mapping[str, str], body: Any) -> httpx.Response:
        return await self.answer(httpx.Request(method, f"http://switch{path}", headers=sent, content=encoded(body)))

    async def answer(self, request: httpx.Request) -> httpx.Response:
        response = await httpx.ASGITransport(self.app).handle_async_request(request)
        await response.aread()
        return response

    async def refresh(self) -> None:
        await self.in_flight.refresh()


def has_room(response: httpx.Response) -> bool:
    """Whether a POST was taken in; else it was refused for what is in flight, and for nothing else."""
    if response.status_code == 202:
        return True
    assert_refused(response, "2003", 503, "of your transfers are in flight")
    assert int(response.headers["retry-after"]) >= 1
    return False


@pytest.fixture
def table_stream(engine: Engine) -> TableStream:
    provision(engine)
    stream = TableStream(engine)
    stream.create_topics(TopicDescription(t.name, t.partitions, t.retention_ms) for t in CATALOGUE.values())
    return stream


@pytest.fixture
def bounded(engine: Engine, table_stream: TableStream, object_store: FolderObjectStore) -> BoundedEdge:
    return BoundedEdge(partial(in_flight_figures, engine), table_stream, object_store)


def add_open(engine: Engine, payer: str, *item_counts: int) -> None:
    with engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO open_expiration (number, is_single, due_date, payer_fsp, item_count)"
                " SELECT 900000 + row_number() OVER (), n = 1, now() + interval '1 hour', :payer, n"
                " FROM unnest(CAST(:counts AS int[])) AS n"
            ),
            {"payer": payer, "counts": list(item_counts)},
        )


def end_open(engine: Engine, payer: str, rows: int) -> None:
    with engine.begin() as tx:
        statement = (
            "DELETE FROM open_expiration WHERE number IN"
            " (SELECT number FROM open_expiration WHERE payer_fsp = :payer LIMIT :rows)"
        )
        assert tx.execute(text(statement), {"payer": payer, "rows": rows}).rowcount == rows


def test_past_the_bound_a_payer_is_refused_and_nobody_else(engine: Engine, bounded: BoundedEdge) -> None:  # BULK-113
    add_open(engine, PAYER, 2, 2, 1)

    async def scenario() -> None:
        await bounded.refresh()
        refused = await bounded.bulk()
        assert not has_room(refused)
        description = refused.json()["errorInformation"]["errorDescription"]
        assert description.endswith("5 of your transfers are in flight, with 2 more the limit of 6 is passed")
        # What still fits is taken in, whichever resource it is of.
        assert has_room(await bounded.single())
        assert not has_room(await bounded.single())
        assert not has_room(await bounded.bulk(items=1))
        for _ in range(3):
            assert has_room(await bounded.bulk(STRANGER))
        assert has_room(await bounded.bulk(PAYEE))
        # Only new transfers are bounded: what asks for them, or ends them, goes on.
        path = f"/bulkTransfers/{uuid.uuid4()}"
        assert (await bounded.send("GET", path, headers("GET"), None)).status_code == 202
        assert (await bounded.send("PUT", path, headers("PUT"), put_body(1))).status_code == 200
        path = f"/transfers/{uuid.uuid4()}"
        assert (await bounded.send("GET", path, transfer_headers("GET"), None)).status_code == 202
        assert (await bounded.send("PUT", f"{path}/error", transfer_headers("PUT"), error_body())).status_code == 200
        end_open(engine, PAYER, 3)
        assert not has_room(await bounded.single())
        await bounded.refresh()
        # One is unread, five have room.
        assert has_room(await bounded.bulk())
        assert has_room(await bounded.bulk())
        assert not has_room(await bounded.bulk())

    asyncio.run(scenario())


def test_a_refused_post_is_neither_kept_nor_published(engine: Engine, bounded: BoundedEdge) -> None:
    add_open(engine, PAYER, 6)

    async def scenario() -> None:
        await bounded.refresh()
        assert not has_room(await bounded.bulk())
        assert not has_room(await bounded.single())

    asyncio.run(scenario())
    assert bounded.store.keys("requests/") == []
    assert {*bounded.stream.end_offsets(TOPIC_BULK_PREPARE).values()} == {0}
    assert {*bounded.stream.end_offsets(TOPIC_SINGLE_PREPARE).values()} == {0}


def test_a_request_counts_once_from_its_receipt_to_its_end(
    engine: Engine, bounded: BoundedEdge, table_stream: TableStream, object_store: FolderObjectStore
) -> None:
    """Unread it counts here, read it counts in the database; between the two it is neither missing nor there twice."""

    async def post_until_refused(source: str) -> int:
        await bounded.refresh()
        for taken in range(100):
            if not has_room(await bounded.bulk(source)):
                return taken
        raise AssertionError("the bound does not bound")

    assert asyncio.run(post_until_refused(PAYER)) == 3
    # A handler that stands still lets nothing more in, however often the figures are read.
    assert asyncio.run(post_until_refused(PAYER)) == 0
    # Of somebody who takes no part nothing becomes open: it ends when it is read.
    assert asyncio.run(post_until_refused("nobody")) == 3

    with running_bulk_prepare(HandlerWorld(engine, table_stream, object_store, HUB_NAME, loop_limits=LOOP)):
        wait_until(lambda: records_read(engine, TOPIC_BULK_PREPARE) == 6)
    assert asyncio.run(post_until_refused(PAYER)) == 0
    assert asyncio.run(post_until_refused("nobody")) == 3
    end_open(engine, PAYER, 1)
    assert asyncio.run(post_until_refused(PAYER)) == 1
    end_open(engine, PAYER, 2)
    assert asyncio.run(post_until_refused(PAYER)) == 2


LOOP = LoopLimits(batch_items=4, batch_wait_ms=20)


@contextmanager
def running_bulk_prepare(world: HandlerWorld) -> Iterator[None]:
    loop = make_loop("bulk-prepare", world)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield
    finally:
        loop.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def records_read(engine: Engine, topic: str) -> int:
    statement = text("SELECT coalesce(sum(next_offset), 0) FROM handler_progress WHERE topic = :topic")
    with engine.connect() as tx:
        return int(tx.execute(statement, {"topic": topic}).scalar_one())


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def known(names: Sequence[str] = (PAYER, PAYEE)) -> Callable[[object, object], InFlightFigures]:
    """Figures of FSPs that have nothing open."""
    return lambda *_: InFlightFigures(frozenset(names), {}, {})


def test_no_burst_slips_through_and_what_fails_is_given_back() -> None:
    store = MemoryObjectStore()
    edge = BoundedEdge(
        known(),
        MemoryStream(),
        store,
        EdgeLimits(items_max=2, in_flight_transfers_per_payer_max=6, in_flight_single_transfers_min=0),
    )

    async def burst() -> list[bool]:
        return [has_room(one) for one in await asyncio.gather(*(edge.bulk() for _ in range(10)))]

    async def scenario() -> None:
        await edge.refresh()
        # None of them is acknowledged while the others come.
        store.answers.clear()
        asyncio.get_running_loop().call_later(0.05, store.answers.set)
        assert sum(await burst()) == 3
        assert not has_room(await edge.single())
        # The other payer's are refused by the store, not by the bound, however often.
        store.down = True
        for _ in range(5):
            assert_refused(await edge.bulk(PAYEE), "2003", 503, "could not be kept")
        store.down = False
        assert [has_room(await edge.bulk(PAYEE)) for _ in range(4)] == [True, True, True, False]

    asyncio.run(scenario())


def test_made_up_names_share_one_bound_and_take_nothing_from_participants() -> None:
    edge = BoundedEdge(known(), MemoryStream(), MemoryObjectStore())

    async def scenario() -> None:
        await edge.refresh()
        taken = [has_room(await edge.bulk(f"fsp{number}")) for number in range(5)]
        assert taken == [True, True, True, False, False]
        assert [has_room(await edge.bulk()) for _ in range(4)] == [True, True, True, False]

    asyncio.run(scenario())


def test_while_the_database_is_away_its_last_figures_hold_for_a_while(  # BULK-113
    database_url: str, postgres_url: str, engine: Engine
) -> None:
    provision(engine)
    edge = BoundedEdge(partial(in_flight_figures, engine), MemoryStream(), MemoryObjectStore())
    name = database_url.split("/")[3].split("?")[0]
    assert database_url == database_url_of(postgres_url, name)

    def allow(connections: bool) -> None:
        server = create_engine(
            postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
        )
        with server.connect() as admin:
            admin.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {connections}"))
            if not connections:
                end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
                admin.execute(text(end), {"name": name})
        server.dispose()

    async def scenario() -> None:
        # Before the first figures nobody can say whether there is room.
        assert_refused(await edge.bulk(), "2003", 503, "not known yet")
        await edge.refresh()
        assert has_room(await edge.bulk())
        allow(False)
        await edge.refresh()
        edge.seconds = 10.0
        await edge.refresh()
        assert has_room(await edge.single())
        edge.seconds = 10.1
        for response in (await edge.bulk(), await edge.single(), await edge.bulk(STRANGER)):
            assert_refused(response, "2003", 503, "has not been known for 10000 ms")
            assert "retry-after" in response.headers
        path = f"/bulkTransfers/{uuid.uuid4()}"
        assert (await edge.send("GET", path, headers("GET"), None)).status_code == 202
        allow(True)
        # A connection of the pool that was ended costs one reading.
        await edge.refresh()
        await edge.refresh()
        # What was taken in meanwhile is not forgotten: three are unread.
        assert has_room(await edge.bulk())
        assert not has_room(await edge.bulk())
        assert has_room(await edge.single())

    asyncio.run(scenario())


def test_while_it_is_unknown_what_is_in_flight_bodies_are_not_read() -> None:
    edge = BoundedEdge(known(), MemoryStream(), MemoryObjectStore())

    async def assert_unread(text: str) -> None:
        for path, sent in (("/bulkTransfers", headers()), ("/transfers", transfer_headers())):
            response = await edge.answer(
                httpx.Request("POST", f"http://switch{path}", headers=sent, content=unread_body())
            )
            assert_refused(response, "2003", 503, text)
            assert int(response.headers["retry-after"]) >= 1

    async def scenario() -> None:
        await assert_unread("not known yet")
        await edge.refresh()
        edge.seconds = 10.1
        await assert_unread("has not been known for 10000 ms")
        await edge.refresh()
        assert has_room(await edge.bulk())
        assert has_room(await edge.single())

    asyncio.run(scenario())


def test_the_app_reads_the_figures_by_itself_from_its_start_to_its_end() -> None:
    readings = 0
    room = threading.Event()

    def figures(*_: object) -> InFlightFigures:
        nonlocal readings
        readings += 1
        if readings == 2:
            raise ZeroDivisionError("a bug must not end the reading")
        return InFlightFigures(frozenset({PAYER}), {} if room.is_set() else {PAYER: 6}, {})

    limits = EdgeLimits(
        items_max=2, in_flight_transfers_per_payer_max=6, in_flight_single_transfers_min=0, in_flight_refresh_ms=5
    )
    edge = BoundedEdge(figures, MemoryStream(), MemoryObjectStore(), limits)

    async def scenario() -> None:
        async with edge.app.router.lifespan_context(edge.app):
            assert readings >= 1
            assert not has_room(await edge.bulk())
            room.set()
            async with asyncio.timeout(WAIT_S):
                while not has_room(await edge.bulk()):
                    await asyncio.sleep(0.005)
        at_the_end = readings
        await asyncio.sleep(0.05)
        assert readings == at_the_end

    asyncio.run(scenario())


def test_a_database_that_hangs_keeps_the_app_from_starting_for_a_bounded_time() -> None:
    hangs = threading.Event()

    def figures(*_: object) -> InFlightFigures:
        hangs.wait(WAIT_S)
        return InFlightFigures(frozenset(), {}, {})

    limits = EdgeLimits(in_flight_refresh_ms=10, in_flight_stale_ms=50)
    edge = BoundedEdge(figures, MemoryStream(), MemoryObjectStore(), limits)

    async def scenario() -> None:
        async with edge.app.router.lifespan_context(edge.app):
            # The event loop is not blocked, and says what is the matter.
            assert_refused(await edge.bulk(), "2003", 503, "not known yet")
            hangs.set()

    asyncio.run(scenario())


def test_the_bound_leaves_room_for_one_bulk() -> None:
    with pytest.raises(ValueError, match="in_flight_transfers_per_payer_max"):
        EdgeLimits(in_flight_transfers_per_payer_max=999)
    with pytest.raises(ValueError, match="in_flight_refresh_ms"):
        EdgeLimits(in_flight_refresh_ms=2, in_flight_stale_ms=1)


def test_some_places_are_for_single_transfers_alone() -> None:  # BULK-133
    limits = EdgeLimits(items_max=2, in_flight_transfers_per_payer_max=6, in_flight_single_transfers_min=2)
    edge = BoundedEdge(known(), MemoryStream(), MemoryObjectStore(), limits)

    async def fill() -> list[bool]:
        await edge.refresh()
        bulks = [has_room(await edge.bulk()) for _ in range(3)]
        return bulks + [has_room(await edge.single()) for _ in range(3)]

    assert asyncio.run(fill()) == [True, True, False, True, True, False]
