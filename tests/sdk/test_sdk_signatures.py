"""Existing clients and the hub understand each other's signatures: the Mojaloop SDK signs and checks, and so do we."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine

from handlers.deliverer import DelivererThread
from object_store.content import put_content
from object_store.folder import FolderObjectStore
from schemas.fspiop.errors import Refusal
from schemas.fspiop.keys import read_key
from schemas.fspiop.signatures import SourceKey, read_signature, require_made_by
from tests.callbacks.callback_rows import (
    ALL_DELIVERED,
    SETTINGS,
    add_participant,
    final,
    final_error,
    forward,
    wait_until,
    write,
)
from tests.callbacks.receiver import Receiver
from tests.fspiop.requests import BULK_ID, error_body, headers, post_body, put_body
from tests.fspiop.signing import key_pair, request_headers
from tests.sdk.sdk import Sdk, running_sdk

KINDS = ["RS256", "ES256"]
PATH = f"/bulkTransfers/{BULK_ID}"
# Text that serializers write in different ways.
ODD_TEXT = 'é ü \u2028 \U0001f4b8 "quoted" \\ / \t \u007f <&>'


def with_odd_text(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "extensionList": {"extension": [{"value": ODD_TEXT, "key": "odd"}]}}


@pytest.fixture(scope="module")
def sdk() -> Iterator[Sdk]:
    with running_sdk() as sdk:
        yield sdk


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/bulkTransfers", with_odd_text(post_body())),
        ("PUT", PATH, with_odd_text(put_body())),
        ("PUT", f"{PATH}/error", error_body()),
    ],
)
@pytest.mark.parametrize("base", ["http://switch:3003", "https://hub.example/fspiop/v1"])
def test_what_the_sdk_signs_is_accepted_here(
    sdk: Sdk, kind: str, method: str, path: str, body: dict[str, Any], base: str
) -> None:
    key = key_pair("payerfsp", kind)
    values, sent = sdk.sign(key.private.decode(), method, f"{base}{path}", headers(method), body)
    keys = [SourceKey(None, read_key(key.public).key)]
    signature = read_signature(method, path, request_headers(method, values))
    assert signature.algorithm == kind
    require_made_by(signature, sent, keys)
    with pytest.raises(Refusal, match="3105"):
        require_made_by(signature, sent + b" ", keys)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_hub_signs_is_accepted_by_the_sdk(
    sdk: Sdk, engine: Engine, object_store: FolderObjectStore, kind: str
) -> None:
    hub = key_pair("hub", kind)
    with Receiver() as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(
            engine,
            forward("payerfsp", put_content(object_store, orjson.dumps(with_odd_text(post_body())))),
            final("payerfsp", put_content(object_store, orjson.dumps(with_odd_text(put_body())))),
            final_error("payerfsp", put_content(object_store, orjson.dumps(error_body()))),
        )
        with DelivererThread(engine, object_store, replace(SETTINGS, signer=hub.signer)):
            requests = fsp.wait_for(3)
            wait_until(engine, ALL_DELIVERED)
    for request in requests:
        assert sdk.fault({"Hub": hub.public}, request.headers, request.body) is None
        other = key_pair("other", kind).public
        assert sdk.fault({"Hub": other}, request.headers, request.body) == "invalid signature"
        changed = orjson.dumps({**orjson.loads(request.body), "extra": "1"})
        assert sdk.fault({"Hub": hub.public}, request.headers, changed) == "invalid signature"
        for name in ("fspiop-uri", "fspiop-http-method", "fspiop-source", "fspiop-destination", "date"):
            bent = {**request.headers, name: f"{request.headers[name]}x"}
            assert sdk.fault({"Hub": hub.public, "Hubx": hub.public}, bent, request.body) is not None, name
