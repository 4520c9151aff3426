"""What a payee answers gets in where new work does not, and bodies together are no larger than their bound."""

import asyncio
import threading

import httpx

from bulk_api_adapter.fspiop.limits import EdgeLimits
from tests.fspiop.requests import BULK_ID, Edge, headers, post_body, put_body
from tests.fspiop.test_edge import assert_refused, encoded

WAIT_S = 30
POST = encoded(post_body())
PUT = encoded(put_body())
PATH = f"/bulkTransfers/{BULK_ID}"


async def until_waiting(edge: Edge, puts: int) -> None:
    """Until so many requests wait for the store."""
    async with asyncio.timeout(WAIT_S):
        while edge.store.puts_running < puts:
            await asyncio.sleep(0.005)


def test_places_are_kept_back_for_answers() -> None:
    edge = Edge(limits=EdgeLimits(requests_in_flight_max=3, answers_in_flight_min=1, publish_wait_ms=WAIT_S * 1_000))
    edge.store.answers.clear()

    async def scenario() -> list[httpx.Response]:
        posts = [asyncio.create_task(edge.exchange("POST", "/bulkTransfers", headers(), POST)) for _ in range(2)]
        await until_waiting(edge, 2)
        for method, path in (("POST", "/bulkTransfers"), ("GET", PATH)):
            refused = await edge.exchange(method, path, headers(method), POST if method == "POST" else None)
            assert_refused(refused, "2003", 503, "too many requests at once")
        answer = asyncio.create_task(edge.exchange("PUT", PATH, headers("PUT"), PUT))
        await until_waiting(edge, 3)
        refused = await edge.exchange("PUT", PATH, headers("PUT"), PUT)
        assert_refused(refused, "2003", 503, "too many requests at once")
        edge.store.answers.set()
        return list(await asyncio.gather(*posts, answer))

    assert [response.status_code for response in asyncio.run(scenario())] == [202, 202, 200]
    edge.close()


def test_bytes_are_kept_back_for_answers_and_given_back() -> None:
    limits = EdgeLimits(
        body_bytes_max=len(POST),
        request_bytes_in_flight_max=2 * len(POST) + len(PUT),
        answer_bytes_in_flight_min=len(PUT),
        publish_wait_ms=WAIT_S * 1_000,
    )
    edge = Edge(limits=limits)

    async def scenario() -> list[httpx.Response]:
        edge.store.answers.clear()
        posts = [asyncio.create_task(edge.exchange("POST", "/bulkTransfers", headers(), POST)) for _ in range(2)]
        await until_waiting(edge, 2)
        refused = await edge.exchange("POST", "/bulkTransfers", headers(), POST)
        assert_refused(refused, "2003", 503, "too many large requests at once")
        assert int(refused.headers["retry-after"]) >= 1
        answer = asyncio.create_task(edge.exchange("PUT", PATH, headers("PUT"), PUT))
        await until_waiting(edge, 3)
        refused = await edge.exchange("PUT", PATH, headers("PUT"), PUT)
        assert_refused(refused, "2003", 503, "too many large requests at once")
        edge.store.answers.set()
        return list(await asyncio.gather(*posts, answer))

    # What ended, and what was refused, is given back: twice the same.
    for _ in range(2):
        assert [response.status_code for response in asyncio.run(scenario())] == [202, 202, 200]
    edge.close()


def test_answers_do_not_wait_for_the_store_behind_new_work() -> None:
    edge = Edge(limits=EdgeLimits(store_writes_max=2, answer_writes_max=1, publish_wait_ms=WAIT_S * 1_000))
    free = threading.Event()
    put = edge.store.put

    def slow_for_new_work(key: str, body: bytes) -> None:
        if b"individualTransferResults" not in body:
            free.wait(WAIT_S)
        put(key, body)

    edge.store.put = slow_for_new_work  # type: ignore[method-assign]  # a store that is slow for some

    async def scenario() -> None:
        posts = [asyncio.create_task(edge.exchange("POST", "/bulkTransfers", headers(), POST)) for _ in range(5)]
        await asyncio.sleep(0)
        assert (await edge.exchange("PUT", PATH, headers("PUT"), PUT)).status_code == 200
        assert not any(post.done() for post in posts)
        free.set()
        assert [response.status_code for response in await asyncio.gather(*posts)] == [202] * 5

    asyncio.run(scenario())
    edge.close()
