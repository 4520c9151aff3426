"""Every header rule of FSPIOP is one row: the change to a good request, and the code, status and text it is refused with."""

import pytest

from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import BODY_BYTES_MAX, HEADER_BYTES_MAX, RequestHeaders, check_headers
from tests.fspiop.requests import MEDIA_TYPE, headers


def check(method: str, values: dict[str, str]) -> RequestHeaders:
    return check_headers(method, list(values.items()))


# (method, changes, code, HTTP status, what the description says)
REFUSALS: list[tuple[str, dict[str, str | None], str, int, str]] = [
    ("POST", {"fspiop_source": None}, "3102", 400, "FSPIOP-Source"),
    ("POST", {"fspiop_source": ""}, "3101", 400, "FSPIOP-Source"),
    ("POST", {"fspiop_source": "x" * 33}, "3101", 400, "FSPIOP-Source"),
    ("POST", {"fspiop_source": "bank\u00e9"}, "3101", 400, "FSPIOP-Source"),
    ("POST", {"x_client_id": "otherfsp"}, "3100", 400, "x-client-id"),
    ("POST", {"accept": None}, "3102", 400, "Accept"),
    ("GET", {"accept": None}, "3102", 400, "Accept"),
    ("POST", {"accept": "*/*"}, "3101", 400, "Accept"),
    ("POST", {"accept": "application/json"}, "3101", 400, "Accept"),
    ("POST", {"accept": f"{MEDIA_TYPE};version=one"}, "3101", 400, "Accept"),
    ("POST", {"accept": f"{MEDIA_TYPE};version=1.1,text/html"}, "3101", 400, "Accept"),
    ("POST", {"accept": "application/vnd.interoperability.transfers+json;version=1.1"}, "3101", 400, "Accept"),
    ("PUT", {"accept": "application/json"}, "3101", 400, "Accept"),
    ("POST", {"accept": f"{MEDIA_TYPE};version=1.2"}, "3001", 406, "The Client requested an unsupported version, "),
    ("GET", {"accept": f"{MEDIA_TYPE};version=3"}, "3001", 406, "The Client requested an unsupported version, "),
    ("PUT", {"accept": f"{MEDIA_TYPE};version=1.2"}, "3001", 406, "The Client requested an unsupported version, "),
    ("POST", {"date": None}, "3102", 400, "Date"),
    ("POST", {"date": ""}, "3101", 400, "Date"),
    ("POST", {"date": "2026-11-21T10:15:30.123Z"}, "3101", 400, "Date"),
    ("POST", {"date": "Tue, 31 Feb 2026 08:12:31 GMT"}, "3101", 400, "Date"),
    ("POST", {"date": "Tue, 15 Nov 1994 08:12:31 CET"}, "3101", 400, "Date"),
    ("POST", {"date": "Tue, 15 Nov 1994 25:12:31 GMT"}, "3101", 400, "Date"),
    ("POST", {"content_length": "many"}, "3101", 400, "Content-Length"),
    ("POST", {"content_length": "-1"}, "3101", 400, "Content-Length"),
    # D25: Mojaloop's own limit is never enforced.
    ("POST", {"content_length": str(BODY_BYTES_MAX + 1)}, "3104", 400, f"the limit is {BODY_BYTES_MAX}"),
    ("POST", {"content_type": None}, "3102", 400, "Content-Type"),
    ("GET", {"content_type": None}, "3102", 400, "Content-Type"),
    ("POST", {"content_type": "application/json"}, "3101", 400, "Content-Type"),
    ("POST", {"content_type": MEDIA_TYPE}, "3101", 400, "Content-Type"),
    ("POST", {"content_type": f"{MEDIA_TYPE};version=1"}, "3101", 400, "Content-Type"),
    ("POST", {"content_type": f"{MEDIA_TYPE};version=\u0661.\u0661"}, "3101", 400, "Content-Type"),
    ("POST", {"content_type": f"{MEDIA_TYPE};version=1.2"}, "3001", 406, "Client supplied a protocol version which"),
    ("PUT", {"content_type": f"{MEDIA_TYPE};version=1.2"}, "3001", 406, "Client supplied a protocol version which"),
    ("POST", {"fspiop_destination": ""}, "3101", 400, "FSPIOP-Destination"),
    ("POST", {"fspiop_destination": "x" * 33}, "3101", 400, "FSPIOP-Destination"),
    ("POST", {"x_padding": "x" * HEADER_BYTES_MAX}, "3104", 400, f"{HEADER_BYTES_MAX} bytes"),
]


@pytest.mark.parametrize(("method", "changes", "code", "status", "text"), REFUSALS)
def test_a_header_that_breaks_a_rule_is_refused_by_name(  # BULK-137
    method: str, changes: dict[str, str | None], code: str, status: int, text: str
) -> None:
    with pytest.raises(Refusal) as refused:
        check(method, headers(method, **changes))
    assert (refused.value.error.code, refused.value.http_status) == (code, status)
    assert text in refused.value.error.description
    assert len(refused.value.error.description) <= 128


def with_version(header: str, version: str) -> tuple[str, dict[str, str | None]]:
    return "POST", {header: f"{MEDIA_TYPE};version={version}"}


ACCEPTED: list[tuple[str, dict[str, str | None]]] = [
    *[with_version("accept", version) for version in ("1", "1.0", "1.1", "2", "2.0")],
    *[with_version("content_type", version) for version in ("1.0", "1.1", "2.0")],
    ("POST", {"accept": MEDIA_TYPE}),
    ("POST", {"accept": f"{MEDIA_TYPE} ; version=1.1"}),
    ("POST", {"accept": f"{MEDIA_TYPE};version=1.2,{MEDIA_TYPE};version=1.1"}),
    ("POST", {"content_type": f"{MEDIA_TYPE}; version=1.1"}),
    ("POST", {"date": "Tue, 15 Nov 1994 08:12:31"}),
    ("POST", {"content_length": str(BODY_BYTES_MAX)}),
    ("POST", {"fspiop_destination": None}),
    ("POST", {"x_client_id": "payerfsp"}),
    ("PUT", {"accept": None}),
    ("PUT", {"accept": "*/*"}),
    ("PUT", {"accept": "application/json, text/plain, */*"}),
    ("PUT", {"accept": f"{MEDIA_TYPE};version=1.0"}),
    ("POST", {"baggage": "\xff not baggage", "traceparent": "not a trace"}),
]


@pytest.mark.parametrize(("method", "changes"), ACCEPTED)
def test_what_real_clients_send_is_accepted(method: str, changes: dict[str, str | None]) -> None:
    assert check(method, headers(method, **changes)).source == "payerfsp"


def test_an_unsupported_version_is_answered_with_those_that_are() -> None:
    for changes in ({"accept": f"{MEDIA_TYPE};version=1.2"}, {"content_type": f"{MEDIA_TYPE};version=1.2"}):
        with pytest.raises(Refusal) as refused:
            check("POST", headers(**changes))
        assert refused.value.extensions == (("1", "0"), ("1", "1"), ("2", "0"))


def test_the_texts_of_406_are_the_ones_that_clients_compare() -> None:
    texts = []
    for changes in ({"accept": f"{MEDIA_TYPE};version=1.2"}, {"content_type": f"{MEDIA_TYPE};version=1.2"}):
        with pytest.raises(Refusal) as refused:
            check("POST", headers(**changes))
        texts.append(refused.value.error.description)
    assert texts == [
        (
            "Unacceptable version requested - The Client requested an unsupported version, "
            "see extension list for supported version(s)."
        ),
        "Unacceptable version requested - Client supplied a protocol version which is not supported by the server",
    ]


def test_of_two_faults_the_one_that_is_checked_first_is_the_answer() -> None:
    order: list[tuple[dict[str, str | None], str]] = [
        ({"x_padding": "x" * HEADER_BYTES_MAX}, "3104"),
        ({"fspiop_source": None}, "3102"),
        ({"x_client_id": "otherfsp"}, "3100"),
        ({"accept": f"{MEDIA_TYPE};version=1.2"}, "3001"),
        ({"date": "yesterday"}, "3101"),
        ({"content_length": str(BODY_BYTES_MAX + 1)}, "3104"),
        ({"content_type": None}, "3102"),
        ({"fspiop_destination": ""}, "3101"),
    ]
    for first in range(len(order)):
        changes: dict[str, str | None] = {}
        for change, _ in reversed(order[first:]):
            changes.update(change)
        with pytest.raises(Refusal) as refused:
            check("POST", headers(**changes))
        assert refused.value.error.code == order[first][1], f"with all faults from {order[first][0]} on"


@pytest.mark.parametrize("name", ["fspiop-source", "fspiop-destination", "fspiop-signature", "date", "content-type"])
def test_a_header_that_stands_twice_is_refused(name: str) -> None:
    values = [*headers(fspiop_signature="{}").items(), (name, "payerfsp")]
    with pytest.raises(Refusal, match=f"3101 .*{name}"):
        check_headers("POST", values)


def test_kept_headers_are_those_of_the_request_and_of_its_trace() -> None:
    values = headers(
        fspiop_signature="{}",
        fspiop_uri="/bulkTransfers",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="rojo=00f067aa0ba902b7",
        authorization="Bearer secret",
        baggage="a=b",
        x_forwarded_for="10.0.0.1",
    )
    checked = check("POST", values)
    assert set(checked.kept) == {
        *{"accept", "content-type", "date", "fspiop-source", "fspiop-destination", "fspiop-signature", "fspiop-uri"},
        *{"traceparent", "tracestate"},
    }
    assert checked.trace == (
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", b"rojo=00f067aa0ba902b7"),
    )


@pytest.mark.parametrize(
    "traceparent",
    [
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "",
    ],
)
def test_an_invalid_trace_is_dropped_and_never_refused(traceparent: str) -> None:
    checked = check("POST", headers(traceparent=traceparent, tracestate="rojo=1"))
    assert checked.trace == ()
    assert not {"traceparent", "tracestate"} & set(checked.kept)


def test_a_trace_state_beyond_its_length_is_dropped_alone() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    checked = check("POST", headers(traceparent=traceparent, tracestate="a" * 513))
    assert checked.trace == (("traceparent", traceparent.encode()),)
