"""What the FSPIOP app answers, keeps and publishes for /transfers: as the payer and the payee sent it, or not at all."""

import json
from typing import Any

import pytest

from bulk_api_adapter.fspiop.authority import Authority
from bulk_api_adapter.fspiop.limits import EdgeLimits
from domain import combinations
from domain.combinations import Combination
from domain.fspiop_errors import ErrorCode
from domain.identifiers import id_bytes, id_text
from object_store.envelope import request_key, unpack_request
from object_store.folder import FolderObjectStore
from schemas.fspiop.bodies import canonical_hash
from schemas.fspiop.datetimes import format_datetime, parse_datetime_ms
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders
from schemas.messages import SingleFulfil, SinglePrepare, TransferGet
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.requests import (
    NOW_MS,
    TRANSFER_ID,
    TRANSFERS_MEDIA_TYPE,
    Edge,
    changed,
    error_body,
    headers,
    post_body,
    transfer_headers,
    transfer_post_body,
    transfer_put_body,
)
from tests.fspiop.test_edge import TRACEPARENT, assert_refused, encoded, messages_of, says

PATH = f"/transfers/{TRANSFER_ID}"
SIGNED = {
    "fspiop_signature": '{"signature":"c2ln","protectedHeader":"aGVhZA"}',
    "fspiop_uri": "/transfers",
    "fspiop_http_method": "POST",
    "fspiop_encryption": '{"encryptedFields":[]}',
    "traceparent": TRACEPARENT,
    "tracestate": "vendor=1",
}
GOOD: list[tuple[str, str, Any]] = [
    ("POST", "/transfers", transfer_post_body()),
    ("PUT", PATH, transfer_put_body()),
    ("PUT", f"{PATH}/error", error_body()),
    ("GET", PATH, None),
]


def test_a_post_is_kept_as_it_was_sent_and_published_before_its_202(
    object_store: FolderObjectStore,
) -> None:  # BULK-132
    edge = Edge(store=object_store)  # type: ignore[arg-type]  # the real one, where a memory is enough elsewhere
    sent = transfer_headers(**SIGNED, authorization="Bearer secret", baggage="a=1")
    # What the payer signed must reach the payee byte for byte, whatever the order of its keys and its blanks.
    raw = json.dumps(dict(reversed(transfer_post_body().items())), indent=3).encode()
    response = edge.send("POST", "/transfers", sent, raw)
    assert (response.status_code, response.content) == (202, b"")

    body = transfer_post_body()
    (message,) = messages_of(edge)
    assert message == SinglePrepare(
        type="prepare",
        action="prepare",
        status="success",
        transfer_id=id_bytes(TRANSFER_ID),
        request_id=message.request_id,
        source="payerfsp",
        destination="payeefsp",
        received_at_ms=NOW_MS,
        payer_fsp="payerfsp",
        payee_fsp="payeefsp",
        currency="USD",
        amount="17.5",
        condition=body["condition"],
        expiration_ms=parse_datetime_ms(body["expiration"]),
        hash=canonical_hash(body),
    )
    (record,) = edge.stream.records
    assert (record.topic, record.key) == (combinations.TOPIC_SINGLE_PREPARE, id_bytes(TRANSFER_ID))
    assert dict(record.headers) == {"traceparent": TRACEPARENT.encode(), "tracestate": b"vendor=1"}

    kept = unpack_request(object_store.get(request_key(message.transfer_id, message.request_id)))
    assert (kept.body, kept.source, kept.destination, kept.received_at_ms) == (raw, "payerfsp", "payeefsp", NOW_MS)
    assert dict(kept.headers) == {k: v for k, v in sent.items() if k not in {"authorization", "baggage"}}
    edge.close()


def test_a_resend_is_another_request_with_the_same_hash(edge: Edge) -> None:
    reordered = json.dumps(dict(reversed(transfer_post_body().items())), indent=3).encode()
    other = encoded(changed(transfer_post_body(), ("amount", "amount"), "18"))
    for raw in (encoded(transfer_post_body()), reordered, other):
        assert edge.send("POST", "/transfers", transfer_headers(), raw).status_code == 202
    first, resend, modified = messages_of(edge)
    assert first.hash == resend.hash != modified.hash
    assert len({first.request_id, resend.request_id, modified.request_id}) == len(edge.store.objects) == 3


def test_a_destination_may_be_absent(edge: Edge) -> None:
    sent = transfer_headers(fspiop_destination=None)
    assert edge.send("POST", "/transfers", sent, encoded(transfer_post_body())).status_code == 202
    assert messages_of(edge)[0].destination is None
    assert edge.send("GET", PATH, transfer_headers("GET", fspiop_destination=None)).status_code == 202


@pytest.mark.parametrize(
    ("state", "version", "combination"),
    [
        ("COMMITTED", "1.0", combinations.SINGLE_COMMIT),
        ("COMMITTED", "1.1", combinations.SINGLE_COMMIT),
        ("RESERVED", "1.1", combinations.SINGLE_RESERVE),
        ("RESERVED", "2.0", combinations.SINGLE_RESERVE),
    ],
)
def test_a_put_is_kept_and_published_as_what_it_says(
    edge: Edge, state: str, version: str, combination: Combination
) -> None:
    sent = transfer_headers("PUT", version, fspiop_source="payeefsp", fspiop_destination="payerfsp", **SIGNED)
    raw = json.dumps(transfer_put_body(state), indent=1).encode()
    response = edge.send("PUT", PATH, sent, raw)
    assert (response.status_code, response.content) == (200, b"")
    (message,) = messages_of(edge)
    body = transfer_put_body(state)
    assert message == SingleFulfil(
        type="fulfil",
        action=combination.action,
        status="success",
        transfer_id=id_bytes(TRANSFER_ID),
        request_id=message.request_id,
        source="payeefsp",
        received_at_ms=NOW_MS,
        fulfilment=body["fulfilment"],
        completed_timestamp=body["completedTimestamp"],
        error_code=None,
        error_description=None,
        hash=canonical_hash(body),
    )
    (packed,) = edge.store.objects.values()
    assert unpack_request(packed).body == raw
    assert dict(unpack_request(packed).headers) == sent


@pytest.mark.parametrize("state", ["COMMITTED", "RESERVED"])
def test_an_answer_without_a_fulfilment_is_for_the_handler_to_judge(edge: Edge, state: str) -> None:
    body = {"transferState": state}
    sent = transfer_headers("PUT", fspiop_source="payeefsp")
    assert edge.send("PUT", PATH, sent, encoded(body)).status_code == 200
    (message,) = messages_of(edge)
    assert (message.fulfilment, message.completed_timestamp) == (None, None)
    assert message.hash == canonical_hash(body)


def test_a_put_error_is_kept_and_published_as_an_abort(edge: Edge) -> None:
    body = changed(error_body(), ("errorInformation", "extensionList"), {"extension": [{"key": "k", "value": "v"}]})
    response = edge.send("PUT", f"{PATH}/error", transfer_headers("PUT", fspiop_source="payeefsp"), encoded(body))
    assert (response.status_code, response.content) == (200, b"")
    (message,) = messages_of(edge)
    assert isinstance(message, SingleFulfil)
    assert says(message, combinations.SINGLE_ABORT)
    assert (message.error_code, message.error_description) == ("5100", "Payee rejection")
    assert (message.fulfilment, message.completed_timestamp) == (None, None)
    assert message.hash == canonical_hash(body)
    (packed,) = edge.store.objects.values()
    assert unpack_request(packed).body == encoded(body)


def test_a_get_is_published_and_leaves_no_object(edge: Edge) -> None:
    response = edge.send("GET", PATH, transfer_headers("GET"))
    assert (response.status_code, response.content) == (202, b"")
    (message,) = messages_of(edge)
    assert isinstance(message, TransferGet)
    assert says(message, combinations.TRANSFER_GET)
    assert (id_text(message.transfer_id), message.source) == (TRANSFER_ID, "payerfsp")
    assert edge.stream.records[0].key == id_bytes(TRANSFER_ID)
    assert not edge.store.objects


@pytest.mark.parametrize(
    ("state", "version"), [("ABORTED", "1.1"), ("RECEIVED", "1.1"), ("ABORTED", "1.0"), ("RESERVED", "1.0")]
)
def test_an_answer_that_changes_nothing_is_200_and_leaves_no_trace(edge: Edge, state: str, version: str) -> None:
    sent = transfer_headers("PUT", version, fspiop_source="payeefsp")
    response = edge.send("PUT", PATH, sent, encoded(transfer_put_body(state)))
    assert (response.status_code, response.content) == (200, b"")
    assert edge.untouched()
    # It is well formed all the same, or it is refused.
    broken = encoded(changed(transfer_put_body(state), ("fulfilment",), "short"))
    assert_refused(edge.send("PUT", PATH, sent, broken), "3101", 400, "fulfilment")


@pytest.mark.parametrize("state", ["COMMITTED", "RESERVED", "ABORTED"])
def test_a_completed_timestamp_may_be_ahead_by_the_setting_and_no_more(state: str) -> None:
    edge = Edge(limits=EdgeLimits(completed_timestamp_ahead_ms=2_000))
    sent = transfer_headers("PUT", fspiop_source="payeefsp")
    body = transfer_put_body(state) | {"completedTimestamp": format_datetime(NOW_MS + 2_001)}
    response = edge.send("PUT", PATH, sent, encoded(body))
    assert_refused(response, "3100", 400, "completedTimestamp is more than 2000 ms in the future")
    assert edge.untouched()
    body["completedTimestamp"] = format_datetime(NOW_MS + 2_000)
    assert edge.send("PUT", PATH, sent, encoded(body)).status_code == 200
    assert len(edge.stream.records) == (0 if state == "ABORTED" else 1)
    edge.close()


@pytest.mark.parametrize(
    ("method", "path", "code", "status", "allowed"),
    [
        ("GET", "/transfers", "3000", 405, "POST"),
        ("PUT", "/transfers", "3000", 405, "POST"),
        ("PATCH", PATH, "3000", 405, "GET, PUT"),
        ("DELETE", PATH, "3000", 405, "GET, PUT"),
        ("POST", PATH, "3000", 405, "GET, PUT"),
        ("OPTIONS", PATH, "3000", 405, "GET, PUT"),
        ("BREW", PATH, "3000", 405, "GET, PUT"),
        ("GET", f"{PATH}/error", "3000", 405, "PUT"),
        ("POST", "/transfers/", "3002", 404, None),
        ("POST", "/Transfers", "3002", 404, None),
        ("GET", f"{PATH}/errors", "3002", 404, None),
    ],
)
def test_unknown_paths_and_methods_are_fspiop_errors(
    edge: Edge, method: str, path: str, code: str, status: int, allowed: str | None
) -> None:
    response = edge.send(method, path, transfer_headers(method), encoded(transfer_post_body()))
    assert_refused(response, code, status)
    assert response.headers.get("allow") == allowed
    assert edge.untouched()


def test_a_head_request_is_405_without_a_body(edge: Edge) -> None:
    response = edge.send("HEAD", PATH, transfer_headers("GET"))
    assert (response.status_code, response.content, response.headers["allow"]) == (405, b"", "GET, PUT")
    assert edge.untouched()


@pytest.mark.parametrize(("method", "path", "body"), GOOD)
def test_the_sender_and_the_media_type_are_checked_as_for_bulks(edge: Edge, method: str, path: str, body: Any) -> None:
    def refused(code: str, status: int, text: str, **changes: str | None) -> None:
        response = edge.send(method, path, transfer_headers(method, **changes), encoded(body))
        assert_refused(response, code, status, text)

    refused("3102", 400, "FSPIOP-Source", fspiop_source=None)
    refused("3100", 400, "x-client-id is not the FSP", x_client_id="payeefsp")
    refused("3102", 400, "Date", date=None)
    refused("3101", 400, "Content-Type", content_type="application/vnd.interoperability.bulkTransfers+json;version=1.1")
    refused("3001", 406, "not supported by the server", content_type=f"{TRANSFERS_MEDIA_TYPE};version=1.2")
    if method != "PUT":
        refused("3001", 406, "unsupported version", accept=f"{TRANSFERS_MEDIA_TYPE};version=1.2")
    assert edge.untouched()
    # And the other way round: a bulk is not taken in as a single transfer's.
    response = edge.send("POST", "/bulkTransfers", transfer_headers(), encoded(post_body()))
    assert_refused(response, "3101", 400, "bulkTransfers+json")
    sent = transfer_headers(method, x_client_id="payerfsp")
    assert edge.send(method, path, sent, encoded(body)).status_code in {200, 202}
    assert len(edge.stream.records) == 1


def test_the_first_fault_in_the_order_of_checks_is_the_answer() -> None:
    judged: list[tuple[str, str, str, bytes]] = []

    class Refusing(Authority):
        def __init__(self) -> None:
            """Needs no keys."""

        async def check(self, method: str, path: str, headers: RequestHeaders, body: bytes) -> None:
            judged.append((method, path, headers.source, body))
            raise Refusal(ErrorCode.INVALID_SIGNATURE, "not signed")

        def close(self) -> None:
            """Holds nothing."""

    edge = Edge(authority=Refusing())
    ahead = transfer_put_body() | {"completedTimestamp": format_datetime(NOW_MS + 60_000)}
    no_date = transfer_headers("PUT", date=None)
    assert_refused(edge.send("PUT", "/transfers/1", no_date, b"{"), "3102", 400, "Date")
    assert_refused(edge.send("PUT", "/transfers/1", transfer_headers("PUT"), b"{"), "3101", 400, "ID in the path")
    assert_refused(edge.send("PUT", PATH, transfer_headers("PUT"), b"{"), "3101", 400, "not JSON")
    assert judged == []
    # The signature is judged before what only its sender may be told, or cause.
    assert_refused(edge.send("PUT", PATH, transfer_headers("PUT"), encoded(ahead)), "3105", 400)
    aborted = encoded(transfer_put_body("ABORTED"))
    assert_refused(edge.send("PUT", PATH, transfer_headers("PUT"), aborted), "3105", 400)
    for method, path, body in [*GOOD, ("POST", "/bulkTransfers", post_body())]:
        sent = headers(method) if path.startswith("/bulk") else transfer_headers(method)
        assert_refused(edge.send(method, path, sent, encoded(body)), "3105", 400, "not signed")
        assert judged[-1] == (method, path, "payerfsp", b"" if method == "GET" else encoded(body))
    assert edge.untouched()
    edge.close()


@pytest.mark.parametrize(("method", "path", "body"), GOOD)
def test_a_stream_or_a_store_that_is_away_is_503_and_nothing_is_published(method: str, path: str, body: Any) -> None:
    edge = Edge(stream=MemoryStream(down=True), store=MemoryObjectStore(down=True))
    response = edge.send(method, path, transfer_headers(method), encoded(body))
    assert_refused(response, "2003", 503)
    assert int(response.headers["retry-after"]) >= 1
    assert edge.untouched()
    edge.stream.down = edge.store.down = False
    assert edge.send(method, path, transfer_headers(method), encoded(body)).status_code in {200, 202}
    edge.close()


def test_a_refused_field_is_named_and_bodies_have_the_same_bounds_as_bulks() -> None:
    edge = Edge(limits=EdgeLimits(body_bytes_max=2_000))
    body = changed(transfer_post_body(), ("amount", "amount"), "1.0")
    response = edge.send("POST", "/transfers", transfer_headers(), encoded(body))
    assert_refused(response, "3101", 400, "amount.amount is not an Amount")
    assert_refused(edge.send("POST", "/transfers", transfer_headers(), b" " * 2_001), "3104", 400, "2000")
    assert edge.untouched()
    edge.close()
