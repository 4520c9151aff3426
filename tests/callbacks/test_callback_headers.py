"""A callback's headers and address, held against the OpenAPI document and against what clients compare literally."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import orjson
import pytest

from domain.delivery import Callback, Resource
from schemas.callbacks import UnusableEndpoint, callback_headers, callback_url
from tests.fspiop_document import check_callback, requires_document

ID = UUID("b51ec534-ee48-4575-b6a9-ead2955b8069")
AT = datetime(2026, 11, 3, 7, 5, 9, tzinfo=UTC)
PUT_BODY = orjson.dumps({"bulkTransferState": "COMPLETED", "completedTimestamp": "2026-11-03T07:05:09.000Z"})
ERROR_BODY = orjson.dumps({"errorInformation": {"errorCode": "3100", "errorDescription": "Generic validation error"}})
POST_BODY = orjson.dumps(
    {
        "bulkTransferId": str(ID),
        "bulkQuoteId": "81ec7dd5-4e0f-4a0c-8e3f-3ad5c7f5e3ef",
        "payerFsp": "payerfsp",
        "payeeFsp": "payeefsp",
        "expiration": "2030-11-03T07:05:09.000Z",
        "individualTransfers": [
            {
                "transferId": "6f1d2c3b-0000-4000-8000-000000000001",
                "transferAmount": {"currency": "USD", "amount": "12.5"},
                "ilpPacket": "AYIBgQAAAAAAAASwNGxl",
                "condition": "kPLCKM62VY2jbekuw3apCTBg5zk_mVs9DD8-XpljQms",
            }
        ],
    }
)
CASES = [
    (Callback.POST, "POST", "/bulkTransfers", POST_BODY),
    (Callback.PUT, "PUT", f"/bulkTransfers/{ID}", PUT_BODY),
    (Callback.PUT_ERROR, "PUT", f"/bulkTransfers/{ID}/error", ERROR_BODY),
]


@requires_document
@pytest.mark.parametrize(("callback", "method", "path", "body"), CASES)
def test_the_headers_of_every_callback_are_valid_by_the_document(
    callback: Callback, method: str, path: str, body: bytes
) -> None:
    headers = callback_headers(Resource.BULK_TRANSFERS, callback, "Hub", "payerfsp", ID.bytes, AT)
    assert check_callback(method, path, headers, body) == []


@requires_document
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"accept": "*/*"}, "a PUT carries an Accept"),
        ({"date": "2026-11-03"}, "Date is no HTTP date: '2026-11-03'"),
        ({"content-type": "application/json"}, "Content-Type is application/json"),
        (
            {"fspiop-uri": f"/bulkTransfers/{ID}"},
            f"fspiop-uri is /bulkTransfers/{ID}, not /payerfsp/bulkTransfers/{ID}",
        ),
        ({"fspiop-http-method": "POST"}, "fspiop-http-method is POST, not PUT"),
        ({"user-agent": "x"}, "header user-agent is none of FSPIOP's"),
    ],
)
def test_the_check_finds_wrong_headers(change: dict[str, str], fault: str) -> None:
    headers = callback_headers(Resource.BULK_TRANSFERS, Callback.PUT, "Hub", "payerfsp", ID.bytes, AT) | change
    assert check_callback("PUT", f"/bulkTransfers/{ID}", headers, PUT_BODY) == [fault]


@requires_document
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{}", "'bulkTransferState' is a required property"),
        (b'{"bulkTransferState":"EXPIRED"}', "'EXPIRED' is not one of"),
        (b'{"bulkTransferState":"COMPLETED","extensionList":null}', "body $.extensionList is null"),
        (b'{"bulkTransferState":"COMPLETED","completedTimestamp":"2026-11-03T07:05:09Z"}', "completedTimestamp"),
        (
            b'{"bulkTransferState":"COMPLETED","individualTransferResults":[{"transferId":"%s","fulfilment":"%s",'
            b'"errorInformation":{"errorCode":"3303","errorDescription":"x"}}]}' % (str(ID).encode(), b"a" * 43),
            "has both fulfilment and errorInformation",
        ),
        (b"not JSON", "the body is no JSON"),
    ],
)
def test_the_check_finds_wrong_bodies(body: bytes, fault: str) -> None:
    headers = callback_headers(Resource.BULK_TRANSFERS, Callback.PUT, "Hub", "payerfsp", ID.bytes, AT)
    found = check_callback("PUT", f"/bulkTransfers/{ID}", headers, body)
    assert any(fault in one for one in found), found


def test_a_put_says_what_the_ecosystem_compares_literally() -> None:
    # Reference §6 and §11.12: the FSP's name stands before the URI, no Accept, no blank after the semicolon.
    assert callback_headers(Resource.BULK_TRANSFERS, Callback.PUT_ERROR, "Hub", "payerfsp", ID.bytes, AT) == {
        "content-type": "application/vnd.interoperability.bulkTransfers+json;version=1.1",
        "date": "Tue, 03 Nov 2026 07:05:09 GMT",
        "fspiop-source": "Hub",
        "fspiop-destination": "payerfsp",
        "fspiop-http-method": "PUT",
        "fspiop-uri": f"/payerfsp/bulkTransfers/{ID}/error",
    }


def test_a_forwarded_post_carries_an_accept_and_a_uri_without_a_name() -> None:
    headers = callback_headers(Resource.BULK_TRANSFERS, Callback.POST, "Hub", "payeefsp", ID.bytes, AT)
    assert headers["accept"] == "application/vnd.interoperability.bulkTransfers+json;version=1.1"
    assert headers["fspiop-uri"] == "/bulkTransfers"


def test_the_date_is_in_gmt_wherever_the_clock_stands() -> None:
    east = AT.astimezone(timezone(timedelta(hours=9)))
    headers = callback_headers(Resource.BULK_TRANSFERS, Callback.PUT, "Hub", "a", ID.bytes, east)
    assert headers["date"] == "Tue, 03 Nov 2026 07:05:09 GMT"


@pytest.mark.parametrize("variable", ["{{id}}", "{{ID}}", "{{ id }}", "{{Id}}"])
def test_the_bulk_stands_where_the_template_says(variable: str) -> None:
    template = f"http://fsp:1/x/bulkTransfers/{variable}"
    url = callback_url(Resource.BULK_TRANSFERS, Callback.PUT, "payerfsp", template, ID.bytes)
    assert url == f"http://fsp:1/x/bulkTransfers/{ID}"


@pytest.mark.parametrize(
    ("callback", "template", "fault"),
    [
        (Callback.PUT, None, "payerfsp has no endpoint of type FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT"),
        (Callback.PUT_ERROR, None, "payerfsp has no endpoint of type FSPIOP_CALLBACK_URL_BULK_TRANSFER_ERROR"),
        (Callback.POST, "http://fsp/{{transferId}}", "knows no variable but {{id}}"),
        (Callback.PUT, "http://fsp/bulkTransfers", "does not say where {{id}} stands"),
        (Callback.POST, "file:///etc/passwd", "is no http or https address"),
        (Callback.POST, "bulkTransfers", "is no http or https address"),
    ],
)
def test_an_endpoint_that_gives_no_address_is_named(callback: Callback, template: str | None, fault: str) -> None:
    with pytest.raises(UnusableEndpoint, match="payerfsp") as refusal:
        callback_url(Resource.BULK_TRANSFERS, callback, "payerfsp", template, ID.bytes)
    assert fault in str(refusal.value)


TRANSFERS = Resource.TRANSFERS


def test_a_single_transfers_callbacks_have_no_fsp_in_their_uri() -> None:  # reference §11.22
    headers = callback_headers(TRANSFERS, Callback.PUT_ERROR, "Hub", "payerfsp", ID.bytes, AT)
    assert headers["fspiop-uri"] == f"/transfers/{ID}/error"
    assert headers["content-type"] == "application/vnd.interoperability.transfers+json;version=1.1"
    assert (headers["fspiop-http-method"], "accept" in headers) == ("PUT", False)
    patch = callback_headers(TRANSFERS, Callback.PATCH, "Hub", "payeefsp", ID.bytes, AT)
    assert (patch["fspiop-http-method"], patch["fspiop-uri"]) == ("PATCH", f"/transfers/{ID}")


def test_a_single_transfers_address_knows_its_own_variable() -> None:  # reference §11.8
    template = "http://fsp:1/transfers/{{transferId}}"
    assert callback_url(TRANSFERS, Callback.PATCH, "payeefsp", template, ID.bytes) == f"http://fsp:1/transfers/{ID}"
    with pytest.raises(UnusableEndpoint, match=r"knows no variable but \{\{transferId\}\}"):
        callback_url(TRANSFERS, Callback.PUT, "payeefsp", "http://fsp:1/transfers/{{id}}", ID.bytes)
