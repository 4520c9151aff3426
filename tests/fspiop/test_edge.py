"""What the FSPIOP app answers, keeps and publishes: for good requests, for bad ones, and when nothing can be kept."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from bulk_api_adapter.fspiop.limits import EdgeLimits
from domain import combinations
from domain.combinations import Combination
from domain.identifiers import id_bytes
from object_store.envelope import request_prefix, unpack_request
from schemas.codec import codec
from schemas.messages import BulkFulfil, BulkGet, BulkPrepare
from schemas.topics import CATALOGUE
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.openapi import validator
from tests.fspiop.requests import (
    BULK_ID,
    MEDIA_TYPE,
    NOW_MS,
    Edge,
    changed,
    error_body,
    headers,
    post_body,
    put_body,
)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


def assert_refused(response: httpx.Response, code: str, status: int, text: str = "") -> None:
    """A refusal is a status with its standard phrase and a body that the OpenAPI document knows."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    body = response.json()
    assert validator("ErrorInformationResponse").is_valid(body)
    information = body["errorInformation"]
    assert information["errorCode"] == code, information
    assert text in information["errorDescription"]
    assert all(value is not None for value in information.values())


def messages_of(edge: Edge) -> list[Any]:
    return [
        message
        for record in edge.stream.records
        for message in codec(CATALOGUE[record.topic].message).decode(record.value)
    ]


def says(message: Any, combination: Combination) -> bool:
    return (message.type, message.action, message.status) == (
        combination.type,
        combination.action,
        combination.status,
    )


def test_a_post_is_kept_and_published_before_its_202(edge: Edge) -> None:  # BULK-14, BULK-58
    sent = headers(traceparent=TRACEPARENT, authorization="Bearer secret", fspiop_uri="/bulkTransfers")
    # The raw bytes are what a signature is made over: they are kept as they came.
    raw = json.dumps(post_body(3), indent=1).encode()
    response = edge.send("POST", "/bulkTransfers", sent, raw)
    assert (response.status_code, response.content, response.headers["content-length"]) == (202, b"", "0")

    (message,) = messages_of(edge)
    assert isinstance(message, BulkPrepare)
    assert says(message, combinations.BULK_PREPARE)
    assert message.bulk_transfer_id == id_bytes(BULK_ID)
    assert (message.source, message.received_at_ms, message.weight) == ("payerfsp", NOW_MS, 3)
    (record,) = edge.stream.records
    assert (record.topic, record.key) == (combinations.TOPIC_BULK_PREPARE, id_bytes(BULK_ID))
    assert record.headers == (("traceparent", TRACEPARENT.encode()),)

    ((key, packed),) = edge.store.objects.items()
    assert key == request_prefix(message.bulk_transfer_id) + str(_uuid(message.request_id))
    kept = unpack_request(packed)
    assert kept.body == raw
    assert (kept.source, kept.destination, kept.received_at_ms) == ("payerfsp", "payeefsp", NOW_MS)
    assert dict(kept.headers) == {name: value for name, value in sent.items() if name != "authorization"}


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def test_every_request_is_kept_under_an_id_of_its_own_and_in_its_order(edge: Edge) -> None:  # D12
    for _ in range(3):
        assert edge.send("POST", "/bulkTransfers", headers(), encoded(post_body())).status_code == 202
    request_ids = [message.request_id for message in messages_of(edge)]
    assert len(set(request_ids)) == len(edge.store.objects) == 3
    assert all(request_id[:6] == NOW_MS.to_bytes(6, "big") for request_id in request_ids)


def test_who_may_send_a_bulk_is_not_judged_here(edge: Edge) -> None:
    assert (
        edge.send("POST", "/bulkTransfers", headers(fspiop_source="stranger"), encoded(post_body())).status_code == 202
    )
    assert messages_of(edge)[0].source == "stranger"


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        (put_body(3), 3),
        ({"bulkTransferState": "ACCEPTED"}, 1),
        # These abort every item of the bulk.
        ({"bulkTransferState": "COMPLETED", "individualTransferResults": []}, 1000),
        ({**put_body(1), "bulkTransferState": "REJECTED"}, 1000),
    ],
)
def test_a_put_is_kept_and_published_before_its_200(edge: Edge, body: Any, weight: int) -> None:  # BULK-27, BULK-69
    response = edge.send("PUT", f"/bulkTransfers/{BULK_ID}", headers("PUT", fspiop_source="payeefsp"), encoded(body))
    assert (response.status_code, response.content) == (200, b"")
    (message,) = messages_of(edge)
    assert isinstance(message, BulkFulfil)
    assert says(message, combinations.BULK_FULFIL)
    assert (message.bulk_transfer_id, message.source, message.weight) == (id_bytes(BULK_ID), "payeefsp", weight)
    (packed,) = edge.store.objects.values()
    assert unpack_request(packed).body == encoded(body)


def test_a_put_error_aborts_as_many_items_as_a_bulk_may_have(edge: Edge) -> None:
    path = f"/bulkTransfers/{BULK_ID}/error"
    response = edge.send("PUT", path, headers("PUT", fspiop_source="payeefsp"), encoded(error_body()))
    assert (response.status_code, response.content) == (200, b"")
    (message,) = messages_of(edge)
    assert isinstance(message, BulkFulfil)
    assert says(message, combinations.BULK_FULFIL_ERROR)
    assert message.weight == 1000
    assert len(edge.store.objects) == 1


def test_a_get_is_published_and_leaves_no_object(edge: Edge) -> None:  # BULK-108
    response = edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers("GET"))
    assert (response.status_code, response.content) == (202, b"")
    (message,) = messages_of(edge)
    assert isinstance(message, BulkGet)
    assert says(message, combinations.BULK_GET)
    assert (message.bulk_transfer_id, message.source, message.received_at_ms) == (id_bytes(BULK_ID), "payerfsp", NOW_MS)
    assert not edge.store.objects


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("POST", "/bulktransfers", "3002", 404),
        ("POST", "/bulkTransfers/", "3002", 404),
        ("GET", "/", "3002", 404),
        ("GET", f"/bulkTransfers/{BULK_ID}/error/more", "3002", 404),
        ("GET", "/docs", "3002", 404),
        ("GET", "/openapi.json", "3002", 404),
        ("GET", "/bulkTransfers", "3000", 405),
        ("DELETE", f"/bulkTransfers/{BULK_ID}", "3000", 405),
        ("PATCH", f"/bulkTransfers/{BULK_ID}", "3000", 405),
        ("OPTIONS", "/bulkTransfers", "3000", 405),
        ("GET", f"/bulkTransfers/{BULK_ID}/error", "3000", 405),
    ],
)
def test_unknown_paths_and_methods_are_fspiop_errors(
    edge: Edge, method: str, path: str, code: str, status: int
) -> None:
    response = edge.send(method, path, headers(method), encoded(post_body()))
    assert_refused(response, code, status)
    assert edge.untouched()


def test_a_head_request_is_405_without_a_body(edge: Edge) -> None:
    response = edge.send("HEAD", f"/bulkTransfers/{BULK_ID}", headers("GET"))
    assert (response.status_code, response.content) == (405, b"")
    assert edge.untouched()


def test_405_names_the_methods_that_are_allowed(edge: Edge) -> None:
    assert edge.send("DELETE", f"/bulkTransfers/{BULK_ID}", headers()).headers["allow"] == "GET, PUT"


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    "identifier", ["1", BULK_ID.upper(), BULK_ID + "%0A", "%00", "..%2f..", BULK_ID.replace("4", "9")]
)
def test_an_id_that_is_no_correlation_id_is_malformed(edge: Edge, method: str, identifier: str) -> None:
    response = edge.send(method, f"/bulkTransfers/{identifier}", headers(method), encoded(put_body()))
    assert response.status_code in {400, 404}
    if response.status_code == 400:
        assert_refused(response, "3101", 400, "ID in the path")
    assert edge.untouched()


def test_headers_are_checked_before_the_path_and_the_path_before_the_body(edge: Edge) -> None:
    bad_date = headers("PUT", date=None)
    assert_refused(edge.send("PUT", "/bulkTransfers/1", bad_date, b"{"), "3102", 400, "Date")
    assert_refused(edge.send("PUT", "/bulkTransfers/1", headers("PUT"), b"{"), "3101", 400, "ID in the path")
    assert_refused(edge.send("PUT", f"/bulkTransfers/{BULK_ID}", headers("PUT"), b"{"), "3101", 400, "not JSON")
    assert edge.untouched()


def test_an_unsupported_version_is_406_with_the_versions_that_are(edge: Edge) -> None:
    wrong = f"{MEDIA_TYPE};version=1.2"
    for sent in (headers(accept=wrong), headers(content_type=wrong)):
        response = edge.send("POST", "/bulkTransfers", sent, encoded(post_body()))
        assert_refused(response, "3001", 406)
        extensions = response.json()["errorInformation"]["extensionList"]["extension"]
        assert extensions == [
            {"key": "1", "value": "0"},
            {"key": "1", "value": "1"},
            {"key": "2", "value": "0"},
        ]
    assert edge.untouched()


def test_a_refused_field_is_named(edge: Edge) -> None:
    body = changed(post_body(20), ("individualTransfers", 17, "transferAmount", "amount"), "1.0")
    response = edge.send("POST", "/bulkTransfers", headers(), encoded(body))
    assert_refused(response, "3101", 400, "individualTransfers[17].transferAmount.amount")
    assert "extensionList" not in response.json()["errorInformation"]
    assert edge.untouched()


def test_limits_are_settings_and_their_refusals_name_them() -> None:  # BULK-129
    edge = Edge(limits=EdgeLimits(items_max=2, body_bytes_max=2_000, header_bytes_max=600))
    response = edge.send("POST", "/bulkTransfers", headers(), encoded(post_body(3)))
    assert_refused(response, "3103", 400, "individualTransfers has 3 elements, the limit is 2")
    response = edge.send("POST", "/bulkTransfers", headers(), b" " * 2_001)
    assert_refused(response, "3104", 400, "the limit is 2000")
    response = edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers(x_padding="x" * 600))
    assert_refused(response, "3104", 400, "600 bytes")
    assert edge.untouched()
    edge.send("PUT", f"/bulkTransfers/{BULK_ID}/error", headers("PUT"), encoded(error_body()))
    assert messages_of(edge)[0].weight == 2
    edge.close()


def test_a_body_without_a_length_is_read_no_further_than_its_limit(edge: Edge) -> None:
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b" " * 1_000_000, "more_body": True}

    answers: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/bulkTransfers",
        "raw_path": b"/bulkTransfers",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers().items()],
    }
    asyncio.run(edge.app(scope, receive, send))
    assert answers[0]["status"] == 400
    assert json.loads(answers[1]["body"])["errorInformation"]["errorCode"] == "3104"
    assert asked == 6
    assert edge.untouched()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/bulkTransfers", post_body()),
        ("PUT", f"/bulkTransfers/{BULK_ID}", put_body()),
        ("PUT", f"/bulkTransfers/{BULK_ID}/error", error_body()),
        ("GET", f"/bulkTransfers/{BULK_ID}", None),
    ],
)
def test_a_stream_that_is_away_is_503_and_nothing_is_published(method: str, path: str, body: Any) -> None:
    edge = Edge(stream=MemoryStream(down=True))
    response = edge.send(method, path, headers(method), encoded(body))
    assert_refused(response, "2003", 503)
    assert int(response.headers["retry-after"]) >= 1
    assert not edge.stream.records
    # Sending it again is what the answer asks for, and works as soon as the stream is back.
    edge.stream.down = False
    assert edge.send(method, path, headers(method), encoded(body)).status_code in {200, 202}
    assert len(edge.stream.records) == 1
    edge.close()


def test_a_store_that_refuses_is_503_and_nothing_is_published() -> None:
    edge = Edge(store=MemoryObjectStore(down=True))
    response = edge.send("POST", "/bulkTransfers", headers(), encoded(post_body()))
    assert_refused(response, "2003", 503)
    assert "retry-after" in response.headers
    assert edge.untouched()
    # A GET keeps nothing, so it needs no store.
    assert edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers("GET")).status_code == 202
    edge.close()


def test_a_stream_that_does_not_acknowledge_is_503_within_its_bound() -> None:
    edge = Edge(limits=EdgeLimits(publish_wait_ms=500))
    edge.stream.acknowledges.clear()
    assert_refused(edge.send("POST", "/bulkTransfers", headers(), encoded(post_body())), "2003", 503)
    assert not edge.stream.records
    # The object stays: after NotAcknowledged the record may still arrive, and would name it.
    assert len(edge.store.objects) == 1
    edge.stream.acknowledges.set()
    edge.close()


def test_a_store_that_hangs_costs_a_bounded_number_of_writes() -> None:
    edge = Edge(limits=EdgeLimits(publish_wait_ms=500, store_writes_max=3))
    edge.store.answers.clear()

    async def many() -> list[httpx.Response]:
        posts = [edge.exchange("POST", "/bulkTransfers", headers(), encoded(post_body())) for _ in range(10)]
        return await asyncio.gather(*posts)

    for response in asyncio.run(many()):
        assert_refused(response, "2003", 503)
    assert edge.store.puts_running_most == 3
    assert edge.untouched()
    edge.store.answers.set()
    edge.close()


def test_more_requests_at_once_than_the_limit_are_503() -> None:
    edge = Edge(limits=EdgeLimits(requests_in_flight_max=4, answers_in_flight_min=0))

    async def many() -> list[int]:
        edge.stream.acknowledges.clear()
        posts = [
            asyncio.create_task(edge.exchange("GET", f"/bulkTransfers/{BULK_ID}", headers("GET"))) for _ in range(10)
        ]
        done, _ = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
        assert all(task.result().status_code == 503 for task in done)
        edge.stream.acknowledges.set()
        return [response.status_code for response in await asyncio.gather(*posts)]

    assert sorted(asyncio.run(many())) == [202] * 4 + [503] * 6
    assert len(edge.stream.records) == 4
    edge.close()


def test_a_bug_is_a_500_in_fspiop_form_and_is_raised_to_the_server(edge: Edge) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a bug in a producer")

    edge.stream.fails = broken
    answered = httpx.ASGITransport(edge.app, raise_app_exceptions=False)

    async def post() -> httpx.Response:
        request = httpx.Request("GET", f"http://switch/bulkTransfers/{BULK_ID}", headers=headers("GET"))
        response = await answered.handle_async_request(request)
        await response.aread()
        return response

    assert_refused(asyncio.run(post()), "2001", 500)
    with pytest.raises(RuntimeError, match="a bug in a producer"):
        edge.send("GET", f"/bulkTransfers/{BULK_ID}", headers("GET"))


def test_health_says_which_of_its_services_is_down(edge: Edge) -> None:
    response = edge.send("GET", "/health", {})
    assert response.status_code == 200
    assert response.json() == {
        "status": "OK",
        "services": [{"name": "broker", "status": "OK"}, {"name": "objectStore", "status": "OK"}],
    }
    edge.stream.down = True
    response = edge.send("GET", "/health", {})
    assert response.status_code == 503
    assert response.json()["services"][0] == {"name": "broker", "status": "DOWN"}


def test_items_max_has_room_in_a_transfer_key() -> None:
    for items_max in (0, 10_000):
        with pytest.raises(ValueError, match="items_max"):
            EdgeLimits(items_max=items_max)
