"""Every body rule of FSPIOP is one row, and the OpenAPI document itself judges whatever else can be written."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.fspiop.bodies import (
    ELEMENTS_MAX,
    NESTING_MAX,
    canonical_hash,
    parse_post,
    parse_put,
    parse_put_error,
    parse_transfer_post,
    parse_transfer_put,
)
from schemas.fspiop.currencies import CURRENCY_CODES, IMPLEMENTATION_CODES
from schemas.fspiop.errors import Refusal
from tests.fspiop.openapi import schema_of, validator
from tests.fspiop.requests import (
    changed,
    error_body,
    post_body,
    put_body,
    transfer_post_body,
    transfer_put_body,
)

Path = tuple[str | int, ...]
EXTENSION = {"key": "k", "value": "v"}
NOT_A_UUID = "B51EC534-EE48-4575-B6A9-EAD2955B8069"


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


def post_with_extensions(path: Path, count: int) -> dict[str, Any]:
    copied: dict[str, Any] = changed(post_body(), path, {"extension": [EXTENSION] * count})
    return copied


# (path, value, code, what the description says of the field)
POST_REFUSALS: list[tuple[Path, Any, str, str]] = [
    *(
        ((field,), ..., "3102", f"{field} is missing")
        for field in ("bulkTransferId", "bulkQuoteId", "payerFsp", "payeeFsp", "individualTransfers", "expiration")
    ),
    (("bulkTransferId",), NOT_A_UUID, "3101", "bulkTransferId is not a CorrelationId"),
    (("bulkTransferId",), "b51ec534-ee48-6575-b6a9-ead2955b8069", "3101", "bulkTransferId"),
    (("bulkTransferId",), 5, "3101", "bulkTransferId is not a string"),
    (("bulkTransferId",), None, "3101", "bulkTransferId is not a string"),
    (("bulkQuoteId",), "b51ec534", "3101", "bulkQuoteId"),
    (("payerFsp",), "", "3100", "payerFsp is empty"),
    (("payeeFsp",), "x" * 33, "3100", "payeeFsp is longer than 32"),
    (("payeeFsp",), "a\x00b", "3101", "payeeFsp is not text without U+0000"),
    (("individualTransfers",), [], "3100", "individualTransfers is empty"),
    (("individualTransfers",), {}, "3101", "individualTransfers is not an array"),
    (("individualTransfers", 1), "x", "3101", "individualTransfers[1] is not an object"),
    (("individualTransfers", 1, "transferId"), ..., "3102", "individualTransfers[1].transferId is missing"),
    (("individualTransfers", 1, "transferId"), NOT_A_UUID, "3101", "individualTransfers[1].transferId"),
    (("individualTransfers", 1, "transferAmount"), ..., "3102", "individualTransfers[1].transferAmount is missing"),
    (("individualTransfers", 1, "transferAmount"), "5 USD", "3101", "transferAmount is not an object"),
    (("individualTransfers", 1, "transferAmount", "amount"), ..., "3102", "transferAmount.amount is missing"),
    *(
        (
            ("individualTransfers", 1, "transferAmount", "amount"),
            amount,
            "3101",
            "individualTransfers[1].transferAmount.amount is not an Amount",
        )
        for amount in ("1.0", "01", "-1", "+1", "1e3", "1.23456", "1" + "0" * 18, ".5", "1.", "", "1\n", "\u0661")
    ),
    (("individualTransfers", 1, "transferAmount", "amount"), 12.5, "3101", "amount is not a string"),
    (("individualTransfers", 1, "transferAmount", "currency"), "usd", "3100", "currency is not a Currency"),
    (("individualTransfers", 1, "transferAmount", "currency"), None, "3101", "currency is not a string"),
    (("individualTransfers", 1, "ilpPacket"), "", "3100", "individualTransfers[1].ilpPacket is empty"),
    (("individualTransfers", 1, "ilpPacket"), "a" * 32_769, "3100", "ilpPacket is longer than 32768"),
    (("individualTransfers", 1, "ilpPacket"), "a+b/", "3101", "ilpPacket is not an IlpPacket"),
    (("individualTransfers", 1, "condition"), "a" * 42, "3101", "individualTransfers[1].condition"),
    (("individualTransfers", 1, "condition"), "a" * 44, "3101", "individualTransfers[1].condition"),
    (("expiration",), "2026-02-29T00:00:00.000Z", "3101", "expiration is not a DateTime"),
    (("expiration",), "2026-02-28T00:00:00Z", "3101", "expiration is not a DateTime"),
    (("extensionList",), None, "3101", "extensionList is not an object"),
    (("extensionList",), {}, "3102", "extensionList.extension is missing"),
    (("extensionList",), {"extension": []}, "3100", "extensionList.extension is empty"),
    (("extensionList",), {"extension": [EXTENSION] * 17}, "3103", "extensionList.extension has more than 16"),
    (("extensionList",), {"extension": [{"key": "k"}]}, "3102", "extensionList.extension[0].value is missing"),
    (
        ("extensionList",),
        {"extension": [{"key": "k" * 33, "value": "v"}]},
        "3100",
        "extension[0].key is longer than 32",
    ),
    (("extensionList",), {"extension": [{"key": "k", "value": "v" * 129}]}, "3100", "value is longer than 128"),
    (
        ("individualTransfers", 1, "extensionList"),
        {"extension": [EXTENSION] * 17},
        "3103",
        "individualTransfers[1].extensionList.extension has more than 16",
    ),
]
RESULT: Path = ("individualTransferResults", 1)
PUT_REFUSALS: list[tuple[Path, Any, str, str]] = [
    (("bulkTransferState",), ..., "3102", "bulkTransferState is missing"),
    (("bulkTransferState",), "DONE", "3100", "bulkTransferState is not a BulkTransferState"),
    (("completedTimestamp",), "now", "3101", "completedTimestamp is not a DateTime"),
    (("completedTimestamp",), None, "3101", "completedTimestamp is not a string"),
    (("individualTransferResults",), None, "3101", "individualTransferResults is not an array"),
    ((*RESULT, "transferId"), ..., "3102", "individualTransferResults[1].transferId is missing"),
    ((*RESULT, "fulfilment"), "short", "3101", "individualTransferResults[1].fulfilment"),
    ((*RESULT, "fulfilment"), None, "3101", "individualTransferResults[1].fulfilment is not a string"),
    ((*RESULT, "errorInformation"), error_body()["errorInformation"], "3100", "both fulfilment and errorInformation"),
    ((*RESULT, "errorInformation"), {"errorCode": "5100"}, "3102", "errorInformation.errorDescription is missing"),
]
INFORMATION: Path = ("errorInformation",)
PUT_ERROR_REFUSALS: list[tuple[Path, Any, str, str]] = [
    (INFORMATION, ..., "3102", "errorInformation is missing"),
    ((*INFORMATION, "errorCode"), ..., "3102", "errorInformation.errorCode is missing"),
    ((*INFORMATION, "errorCode"), "0100", "3101", "errorInformation.errorCode is not an ErrorCode"),
    ((*INFORMATION, "errorCode"), 5100, "3101", "errorInformation.errorCode is not a string"),
    ((*INFORMATION, "errorDescription"), "", "3100", "errorInformation.errorDescription is empty"),
    ((*INFORMATION, "errorDescription"), "x" * 129, "3100", "errorDescription is longer than 128"),
    ((*INFORMATION, "extensionList"), {"extension": []}, "3100", "errorInformation.extensionList.extension is empty"),
]
TRANSFER_POST_REFUSALS: list[tuple[Path, Any, str, str]] = [
    *(
        ((field,), ..., "3102", f"{field} is missing")
        for field in ("transferId", "payerFsp", "payeeFsp", "amount", "ilpPacket", "condition", "expiration")
    ),
    (("transferId",), NOT_A_UUID, "3101", "transferId is not a CorrelationId"),
    (("payerFsp",), "", "3100", "payerFsp is empty"),
    (("payeeFsp",), "x" * 33, "3100", "payeeFsp is longer than 32"),
    (("amount",), "5 USD", "3101", "amount is not an object"),
    (("amount", "currency"), "usd", "3100", "amount.currency is not a Currency"),
    *(
        (("amount", "amount"), amount, "3101", "amount.amount is not an Amount")
        for amount in ("1.0", "01", "-1", "1e3", "1.23456", "1" + "0" * 18, "")
    ),
    (("ilpPacket",), "", "3100", "ilpPacket is empty"),
    (("ilpPacket",), "a" * 32_769, "3100", "ilpPacket is longer than 32768"),
    (("condition",), "a" * 44, "3101", "condition is not 43 base64url characters"),
    (("expiration",), "2026-02-28T00:00:00Z", "3101", "expiration is not a DateTime"),
    (("extensionList",), {"extension": []}, "3100", "extensionList.extension is empty"),
    (("extensionList",), {"extension": [EXTENSION] * 17}, "3103", "extensionList.extension has more than 16"),
]
TRANSFER_PUT_REFUSALS: list[tuple[Path, Any, str, str]] = [
    (("transferState",), ..., "3102", "transferState is missing"),
    (("transferState",), "COMPLETED", "3100", "transferState is not a TransferState"),
    (("transferState",), 1, "3101", "transferState is not a string"),
    (("fulfilment",), "short", "3101", "fulfilment is not 43 base64url characters"),
    (("fulfilment",), None, "3101", "fulfilment is not a string"),
    (("completedTimestamp",), "now", "3101", "completedTimestamp is not a DateTime"),
    (("extensionList",), {"extension": [EXTENSION] * 17}, "3103", "extensionList.extension has more than 16"),
]
REFUSALS = [
    *((parse_transfer_post, transfer_post_body, *row) for row in TRANSFER_POST_REFUSALS),
    *((parse_transfer_put, transfer_put_body, *row) for row in TRANSFER_PUT_REFUSALS),
    *((parse_post, post_body, *row) for row in POST_REFUSALS),
    *((parse_put, put_body, *row) for row in PUT_REFUSALS),
    *((parse_put_error, error_body, *row) for row in PUT_ERROR_REFUSALS),
]


def assert_refused(parse: Callable[[bytes], object], raw: bytes, code: str, text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(raw)
    assert refused.value.error.code == code, refused.value.error
    assert text in refused.value.error.description
    assert len(refused.value.error.description) <= 128
    assert refused.value.http_status == 400


@pytest.mark.parametrize(("parse", "body", "path", "value", "code", "text"), REFUSALS)
def test_a_field_that_breaks_a_rule_is_refused_by_name(  # BULK-137, D25
    parse: Callable[[bytes], object], body: Callable[[], Any], path: Path, value: Any, code: str, text: str
) -> None:
    parse(encoded(body()))
    assert_refused(parse, encoded(changed(body(), path, value)), code, text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * (NESTING_MAX + 1) + b"1" + b"}" * (NESTING_MAX + 1), "nested deeper"),
        (b'{"a": 123456789012345678901234567890}', "too large"),
        (b'{"a": -1e30}', "too large"),
        (b'{"a": 1, "a": 1}', "same key twice"),
        (b'{"a": {"b": 1, "\\u0062": 1}}', "same key twice"),
        (b'{"a\\"": "\\\\", "a\\"": ":"}', "same key twice"),
        (b"[]", "the body is not an object"),
        (b"null", "the body is not an object"),
        (b'"text"', "the body is not an object"),
        (b"5", "the body is not an object"),
    ],
)
def test_what_is_not_a_json_object_is_malformed(raw: bytes, text: str) -> None:
    for parse in (parse_post, parse_put, parse_put_error, parse_transfer_post, parse_transfer_put):
        assert_refused(parse, raw, "3101", text)


def test_a_key_that_stands_twice_anywhere_in_a_good_body_is_refused() -> None:
    raw = encoded(post_body())
    assert_refused(parse_post, raw.replace(b'"amount": "2"', b'"amount": "2", "amount": "3"'), "3101", "twice")
    assert_refused(parse_post, raw[:-1] + b', "payerFsp": "payerfsp"}', "3101", "twice")


def test_colons_and_quotes_inside_of_strings_are_not_taken_for_keys() -> None:
    body = changed(post_body(), ("extensionList",), {"extension": [{"key": ':"\\', "value": '\\":{"a":1}\\\\"'}]})
    assert parse_post(encoded(body)) == body


def test_more_elements_than_any_body_has_are_refused() -> None:
    raw = b'{"a": [' + b"[]," * ELEMENTS_MAX + b"[]]}"
    assert_refused(parse_post, raw, "3103", str(ELEMENTS_MAX))


def test_items_are_refused_beyond_the_setting_and_not_at_it() -> None:  # BULK-129
    assert len(parse_post(encoded(post_body(1000)))["individualTransfers"]) == 1000
    assert len(parse_put(encoded(put_body(1000)))["individualTransferResults"]) == 1000
    text = "has 1001 elements, the limit is 1000"
    assert_refused(parse_post, encoded(post_body(1001)), "3103", f"individualTransfers {text}")
    assert_refused(parse_put, encoded(put_body(1001)), "3103", f"individualTransferResults {text}")
    assert_refused(lambda raw: parse_post(raw, items_max=2), encoded(post_body(3)), "3103", "the limit is 2")
    assert len(parse_post(encoded(post_body(1001)), items_max=1001)["individualTransfers"]) == 1001


def test_absent_and_empty_results_are_legal() -> None:  # D23
    parse_put(encoded(changed(put_body(), ("individualTransferResults",), ...)))
    parse_put(encoded(changed(put_body(), ("individualTransferResults",), [])))
    # A result without a fulfilment is for the fulfil handler to judge.
    parse_put(encoded(changed(put_body(), (*RESULT, "fulfilment"), ...)))


def test_unknown_fields_are_kept_because_the_document_does_not_forbid_them() -> None:
    body = changed(post_body(), ("individualTransfers", 0, "memo"), {"a": [1, 2.5, None, True]})
    assert parse_post(encoded(body)) == body
    transfer = changed(transfer_post_body(), ("memo",), [None, {"a": 1}])
    assert parse_transfer_post(encoded(transfer)) == transfer


def test_what_the_document_allows_in_a_single_transfer_is_left_to_the_handlers() -> None:
    for path, value in ((("amount", "amount"), "0"), (("extensionList",), {"extension": [EXTENSION] * 16})):
        parse_transfer_post(encoded(changed(transfer_post_body(), path, value)))
    # A COMMITTED without a fulfilment ends the transfer there.
    parse_transfer_put(encoded({"transferState": "COMMITTED"}))


def test_the_longest_path_of_a_field_leaves_room_for_what_is_wrong_with_it() -> None:
    information = {"errorCode": "5100", "errorDescription": "no", "extensionList": {"extension": [EXTENSION] * 16}}
    body = put_body(1000)
    body["individualTransferResults"][999] = {
        "transferId": body["individualTransferResults"][999]["transferId"],
        "errorInformation": information
        | {"extensionList": {"extension": [EXTENSION] * 15 + [{"key": "k", "value": ""}]}},
    }
    path = "individualTransferResults[999].errorInformation.extensionList.extension[15].value"
    assert_refused(parse_put, encoded(body), "3100", f"{path} is empty")


def test_every_currency_of_the_document_is_accepted_and_two_more() -> None:
    assert set(CURRENCY_CODES) == {*schema_of("Currency")["enum"], *IMPLEMENTATION_CODES}
    for code in CURRENCY_CODES:
        parse_post(encoded(changed(post_body(), ("individualTransfers", 0, "transferAmount", "currency"), code)))


# Whatever is put in whatever place of a good body: the document and the edge say the same, but for what stands in
# `_edge_alone` below.
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.text(max_size=3),
    st.sampled_from(
        [
            *(
                "",
                "0",
                "0.1",
                "1.10",
                "USD",
                "REJECTED",
                "RESERVED",
                "b51ec534-ee48-4575-b6a9-ead2955b8069",
                "5100",
                "x" * 33,
            ),
            *("x" * 43, "x" * 44, "x" * 129, "2024-02-29T23:59:59.999-19:59", "2023-02-29T23:59:59.999Z"),
        ]
    ),
    st.builds(lambda count: {"extension": [EXTENSION] * count}, st.integers(0, 18)),
    st.just([]),
    st.just({}),
    st.just([{}]),
    st.just(error_body()["errorInformation"]),
)


def places(body: object, path: Path = ()) -> list[Path]:
    below: list[Path] = [path] if path else []
    if isinstance(body, dict):
        steps: list[tuple[str | int, object]] = [*body.items(), ("extensionList", None), ("errorInformation", None)]
    else:
        steps = list(enumerate(body)) if isinstance(body, list) else []
    for step, value in steps:
        below += places(value, (*path, step))
    return below


def _edge_alone(body: Any) -> bool:
    """What the edge refuses although the document lets it pass."""
    text = json.dumps(body, ensure_ascii=False)
    results = body.get("individualTransferResults") or []
    both = any(isinstance(result, dict) and {"fulfilment", "errorInformation"} <= set(result) for result in results)
    # Python's regular expressions let a line end follow the end, and every script's digits be digits.
    return both or "\\u0000" in text or "\\n" in text or any(one.isdigit() and not one.isascii() for one in text)


KINDS: dict[str, tuple[Callable[[bytes], object], Callable[[], Any]]] = {
    "BulkTransfersPostRequest": (parse_post, post_body),
    "BulkTransfersIDPutResponse": (parse_put, put_body),
    "ErrorInformationObject": (parse_put_error, error_body),
    "TransfersPostRequest": (parse_transfer_post, transfer_post_body),
    "TransfersIDPutResponse": (parse_transfer_put, transfer_put_body),
}


@settings(max_examples=500)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_the_edge_and_the_document_agree_on_every_body(schema: str, data: st.DataObject) -> None:
    parse, make = KINDS[schema]
    body = copy.deepcopy(make())
    for _ in range(data.draw(st.integers(0, 2))):
        path = data.draw(st.sampled_from(places(body)))
        body = changed(body, path, data.draw(JUNK))
    valid = validator(schema).is_valid(body)
    refusal = refusal_of(parse, body)
    if refusal is None:
        assert valid, "the document forbids what was accepted"
    else:
        assert not valid or _edge_alone(body), f"{refusal} of a body that the document allows"
        assert validator("ErrorInformationObject").is_valid(json.loads(refusal.body()))


def refusal_of(parse: Callable[[bytes], object], body: object) -> Refusal | None:
    try:
        parse(encoded(body))
    except Refusal as refusal:
        return refusal
    return None


def hash_of(raw: bytes) -> bytes:
    return canonical_hash(json.loads(raw))


def test_hashes_see_content_and_not_its_form() -> None:  # BULK-123
    body = post_body()
    reordered = json.dumps(dict(reversed(body.items())), indent=3).encode()
    escaped = encoded(body).replace(b"payerfsp", b"\\u0070ayerfsp")
    assert hash_of(encoded(body)) == hash_of(reordered) == hash_of(escaped)
    assert hash_of(encoded(body)) != hash_of(encoded(changed(body, ("payeeFsp",), "other")))
    swapped = changed(body, ("individualTransfers",), body["individualTransfers"][::-1])
    assert hash_of(encoded(body)) != hash_of(encoded(swapped))
    item = body["individualTransfers"][0]
    assert canonical_hash(item) == canonical_hash(dict(reversed(item.items())))
    assert canonical_hash(item) != canonical_hash(changed(item, ("transferAmount", "amount"), "1.5"))
    assert len(hash_of(encoded(body))) == 32
