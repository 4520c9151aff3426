"""A part that is away is found out by a few requests; the others are told at once, and all get in when it is back."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from bulk_api_adapter.fspiop.circuit import Circuit
from bulk_api_adapter.fspiop.limits import EdgeLimits
from schemas.fspiop.errors import Refusal
from stream.interface import StreamUnavailable, UnknownTopic
from tests.fspiop.requests import BULK_ID, Edge, headers, post_body, put_body
from tests.fspiop.test_edge import assert_refused, encoded

LIMITS = EdgeLimits(publish_wait_ms=50, failures_until_probing=3, probe_interval_ms=500)


class Part:
    """A circuit with a clock of its own."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.circuit = Circuit("stream", StreamUnavailable, LIMITS, monotonic_s=lambda: self.seconds)

    def fail(self, error: BaseException | None = None) -> None:
        error = error or StreamUnavailable("no broker")
        with pytest.raises(type(error)), self.circuit.attempt():
            raise error

    def run_out_of_time(self) -> None:
        with self.circuit.attempt():
            self.seconds += LIMITS.publish_wait_ms / 1000
            raise asyncio.CancelledError

    def succeed(self) -> None:
        with self.circuit.attempt():
            pass

    def is_refused(self) -> bool:
        try:
            self.circuit.require_way()
        except Refusal as refusal:
            return refusal.http_status == 503 and refusal.retry_after_s >= 1
        return False


def test_so_many_failures_in_a_row_close_the_way_and_one_success_opens_it() -> None:
    part = Part()
    part.fail()
    part.fail()
    part.succeed()
    part.fail()
    part.fail()
    assert not part.is_refused()
    part.fail()
    assert part.is_refused()
    with pytest.raises(Refusal), part.circuit.attempt():
        raise AssertionError("not this request's turn")
    part.seconds += 0.5
    assert not part.is_refused()
    part.fail()
    assert part.is_refused()
    part.seconds += 0.5
    part.succeed()
    assert not part.is_refused()
    part.fail()
    assert not part.is_refused()


def test_one_request_at_a_time_finds_out() -> None:
    part = Part()
    for _ in range(3):
        part.fail()
    part.seconds += 0.5
    with part.circuit.attempt():
        part.seconds += 100
        assert part.is_refused()
    assert not part.is_refused()


def test_what_says_nothing_about_the_part_does_not_count() -> None:
    part = Part()
    for _ in range(10):
        part.fail(UnknownTopic("x"))
        part.fail(ZeroDivisionError())
        # The time of the request was used up elsewhere.
        part.fail(asyncio.CancelledError())
    assert not part.is_refused()
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            part.run_out_of_time()
    assert part.is_refused()


def test_a_probe_that_says_nothing_lets_the_next_one_in() -> None:
    part = Part()
    for _ in range(3):
        part.fail()
    part.seconds += 0.5
    part.fail(ZeroDivisionError())
    assert not part.is_refused()
    part.succeed()
    assert not part.circuit.is_probing


async def unread_body() -> AsyncIterator[bytes]:
    for piece in (b"{", b"}"):
        raise AssertionError(f"the body was read, up to {piece!r}")
    yield b""


def test_while_a_part_is_away_bodies_are_not_read_and_each_verb_asks_what_it_needs() -> None:
    edge = Edge(limits=EdgeLimits(failures_until_probing=3, probe_interval_ms=60_000))
    edge.store.down = True
    for _ in range(3):
        response = edge.send("POST", "/bulkTransfers", headers(), encoded(post_body()))
        assert_refused(response, "2003", 503, "could not be kept")

    async def without_reading(method: str, path: str) -> httpx.Response:
        request = httpx.Request(method, f"http://switch{path}", headers=headers(method), content=unread_body())
        response = await httpx.ASGITransport(edge.app).handle_async_request(request)
        await response.aread()
        return response

    for method, path in (("POST", "/bulkTransfers"), ("PUT", f"/bulkTransfers/{BULK_ID}")):
        response = asyncio.run(without_reading(method, path))
        assert_refused(response, "2003", 503, "the object store is away")
        assert int(response.headers["retry-after"]) >= 1
    # A GET keeps nothing.
    assert edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers("GET")).status_code == 202
    edge.stream.down = True
    for _ in range(3):
        assert_refused(edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers("GET")), "2003", 503, "could not be kept")
    response = edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers("GET"))
    assert_refused(response, "2003", 503, "the stream is away")
    edge.close()


def test_when_the_part_is_back_the_next_probe_gets_everybody_in() -> None:
    edge = Edge(limits=EdgeLimits(failures_until_probing=3, probe_interval_ms=1))
    edge.stream.down = True
    for _ in range(6):
        assert_refused(edge.send("PUT", f"/bulkTransfers/{BULK_ID}", headers("PUT"), encoded(put_body())), "2003", 503)
    edge.stream.down = False
    statuses = []
    while 200 not in statuses:
        # Refused as long as the interval lasts.
        response = edge.send("PUT", f"/bulkTransfers/{BULK_ID}", headers("PUT"), encoded(put_body()))
        statuses.append(response.status_code)
        assert len(statuses) < 1_000

    async def many() -> list[int]:
        gets = [edge.exchange("GET", f"/bulkTransfers/{BULK_ID}", headers("GET")) for _ in range(10)]
        return [response.status_code for response in await asyncio.gather(*gets)]

    assert asyncio.run(many()) == [202] * 10
    edge.close()
