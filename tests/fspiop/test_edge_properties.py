"""Mutated headers, paths and bodies: never a 5xx, and nothing is kept or published unless the answer is 200 or 202."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fspiop.openapi import validator
from tests.fspiop.requests import (
    BULK_ID,
    MEDIA_TYPE,
    TRANSFER_ID,
    TRANSFERS_MEDIA_TYPE,
    Edge,
    changed,
    error_body,
    headers,
    post_body,
    put_body,
    transfer_headers,
    transfer_post_body,
    transfer_put_body,
)
from tests.fspiop.test_bodies import places

GOOD: list[tuple[str, str, Any]] = [
    ("POST", "/bulkTransfers", post_body()),
    ("PUT", f"/bulkTransfers/{BULK_ID}", put_body()),
    ("PUT", f"/bulkTransfers/{BULK_ID}/error", error_body()),
    ("GET", f"/bulkTransfers/{BULK_ID}", None),
    ("POST", "/transfers", transfer_post_body()),
    ("PUT", f"/transfers/{TRANSFER_ID}", transfer_put_body()),
    ("PUT", f"/transfers/{TRANSFER_ID}", transfer_put_body("RESERVED")),
    ("PUT", f"/transfers/{TRANSFER_ID}/error", error_body()),
    ("GET", f"/transfers/{TRANSFER_ID}", None),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)
# What httptools lets through as a value: no control characters but the tab, and any byte above them.
HEADER_VALUES = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60),
    st.sampled_from(
        [
            "",
            "*/*",
            MEDIA_TYPE,
            f"{MEDIA_TYPE};version=1.2",
            f"{TRANSFERS_MEDIA_TYPE};version=1.0",
            "payerfsp,payerfsp",
            "x" * 70_000,
            "0",
        ]
    ),
)
HEADER_NAMES = st.sampled_from(
    [
        *("accept", "content-type", "date", "fspiop-source", "fspiop-destination", "x-client-id", "content-length"),
        *("traceparent", "tracestate", "baggage", "fspiop-signature", "fspiop-uri", "expect", "fspiop-proxy"),
    ]
)
PATHS = st.sampled_from(
    [
        *("/bulkTransfers", "/bulkTransfers/1", "/bulkTransfers/%FF", "/bulkTransfers//error", "//bulkTransfers"),
        *("/transfers", "/transfers/1", "/transfers/%2F", f"/transfers/{TRANSFER_ID}/error/error"),
        *(f"/bulkTransfers/{BULK_ID}%00", f"/bulkTransfers/{BULK_ID}?x=1", "/health/", "/%2e%2e/etc/passwd"),
    ]
)


@pytest.fixture(scope="module")
def shared_edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


@settings(max_examples=400)
@given(st.data())
def test_no_request_breaks_the_edge_or_leaves_a_trace_when_refused(shared_edge: Edge, data: st.DataObject) -> None:
    edge = shared_edge
    edge.stream.records.clear()
    edge.store.objects.clear()
    method, path, body = data.draw(st.sampled_from(GOOD))
    good = transfer_headers(method) if path.startswith("/transfers") else headers(method)
    sent = [(name, value.encode("latin-1")) for name, value in good.items()]
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(0, 3))):
            name = data.draw(HEADER_NAMES)
            sent = [header for header in sent if header[0] != name or data.draw(st.booleans())]
            if data.draw(st.booleans()):
                sent.append((name, data.draw(HEADER_VALUES).encode("latin-1")))
    if data.draw(st.integers(0, 9)) == 0:
        method = data.draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]))
    if data.draw(st.integers(0, 9)) == 0:
        path = data.draw(PATHS)
    if body is not None and data.draw(st.booleans()):
        body = changed(body, data.draw(st.sampled_from(places(body))), data.draw(ANYTHING))
    raw = json.dumps(body).encode()
    for _ in range(data.draw(st.integers(0, 2))):
        start = data.draw(st.integers(0, len(raw)))
        raw = raw[:start] + data.draw(st.binary(max_size=4)) + raw[start + data.draw(st.integers(0, 4)) :]

    response = edge.send(method, path, sent, raw)  # type: ignore[arg-type]  # httpx takes values of bytes too

    if response.status_code in {200, 202}:
        effects = 0 if without_effect(method, path, sent, raw) else 1
        assert len(edge.stream.records) == effects
        assert len(edge.store.objects) == (effects if method != "GET" else 0)
        assert response.content == b""
    else:
        assert 400 <= response.status_code < 500, response.text
        assert edge.untouched()
        assert validator("ErrorInformationObject").is_valid(response.json())


def without_effect(method: str, path: str, sent: list[tuple[str, bytes]], raw: bytes) -> bool:
    """Whether this is one of the answers of a payee that change nothing (reference §11.23)."""
    if method != "PUT" or not path.startswith("/transfers/") or path.endswith("/error"):
        return False
    state = json.loads(raw)["transferState"]
    old = dict(sent)["content-type"].endswith(b"1.0")
    return state in {"ABORTED", "RECEIVED"} or (state == "RESERVED" and old)
