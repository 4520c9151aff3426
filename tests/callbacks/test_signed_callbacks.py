"""What the hub says is signed with the hub's key over the bytes that are sent, what an FSP said goes out as it was sent."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import Engine, text

from domain.identifiers import id_bytes
from handlers.deliverer import DelivererThread
from object_store.content import put_content
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.folder import FolderObjectStore
from schemas.fspiop.keys import read_key
from schemas.fspiop.signatures import SourceKey, canonical, read_signature, require_made_by
from tests.callbacks.callback_rows import (
    ALL_DELIVERED,
    ERROR_BODY,
    PUT_BODY,
    SETTINGS,
    add_participant,
    final,
    final_error,
    forward,
    wait_until,
    write,
)
from tests.callbacks.receiver import OK, UNAVAILABLE, RawRequest, Receiver
from tests.fspiop.requests import BULK_ID, post_body
from tests.fspiop.signing import key_pair, request_headers, signed

POST_BODY = orjson.dumps(post_body(), option=orjson.OPT_INDENT_2)


def require_signed_by(kind: str, request: RawRequest) -> None:
    """As an FSP checks it; the path is what fspiop-uri says, which is not the endpoint's (reference §6)."""
    method = request.line.split()[0]
    # The checks of headers are those of requests to the hub, which a callback is not: a PUT's Accept, and so on.
    headers = request_headers(method, {**request.headers, "accept": "*/*"} if method == "PUT" else request.headers)
    signature = read_signature(method, request.headers["fspiop-uri"], headers)
    require_made_by(signature, request.body, [SourceKey("2026", read_key(key_pair("hub", kind).public).key)])


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_every_callback_is_signed_and_every_attempt_has_the_same_bytes(
    engine: Engine, object_store: FolderObjectStore, kind: str
) -> None:
    # X-36, reference §8: POST, PUT and PUT …/error, each tried twice.
    seen: dict[str, list[RawRequest]] = {}

    def respond(request: RawRequest, connection: Any) -> None:
        attempts = seen.setdefault(request.line, [])
        attempts.append(request)
        connection.sendall(UNAVAILABLE if len(attempts) == 1 else OK)

    with Receiver(respond) as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(
            engine,
            forward("payerfsp", put_content(object_store, POST_BODY)),
            final("payerfsp", put_content(object_store, PUT_BODY)),
            final_error("payerfsp", put_content(object_store, ERROR_BODY)),
        )
        with DelivererThread(engine, object_store, replace(SETTINGS, signer=key_pair("hub", kind).signer)):
            wait_until(engine, ALL_DELIVERED)
    assert len(seen) == 3
    for first, second in seen.values():
        assert (first.head, first.body) == (second.head, second.body)
        require_signed_by(kind, first)
        assert first.body == canonical(first.body)
    assert {one[0].body for one in seen.values()} == {canonical(body) for body in (POST_BODY, PUT_BODY, ERROR_BODY)}


def test_without_a_key_nothing_is_signed_and_the_bytes_are_those_that_were_written(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    with Receiver() as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, forward("payerfsp", put_content(object_store, POST_BODY)))
        (request,) = fsp.wait_for(1)
    assert "fspiop-signature" not in request.headers
    assert request.body == POST_BODY


@pytest.mark.parametrize("hub_signs", [False, True])
def test_what_an_fsp_said_goes_out_as_it_was_sent(
    engine: Engine, object_store: FolderObjectStore, hub_signs: bool
) -> None:
    # Reference §11.22: source, date, content type, signature and URI unchanged, so that the end can check them.
    key, body, bulk = key_pair("payeefsp"), b'{ "b":1,\n "a":2 }', UUID(BULK_ID)
    sent = signed(
        key.signer,
        "PUT",
        f"/bulkTransfers/{BULK_ID}",
        body,
        fspiop_source="payeefsp",
        fspiop_destination="payerfsp",
        accept="*/*",
        x_forwarded_for="10.0.0.1",
    )
    checked = request_headers("PUT", sent)
    content = request_key(bulk.bytes, id_bytes(str(uuid4())))
    object_store.put(content, pack_request(KeptRequest("payeefsp", "payerfsp", 0, checked.kept, body)))
    settings = replace(SETTINGS, signer=key_pair("hub").signer if hub_signs else None)
    with Receiver() as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", content, bulk))
        with engine.begin() as tx:
            tx.execute(text("UPDATE delivery SET headers = NULL"))
        with DelivererThread(engine, object_store, settings):
            (request,) = fsp.wait_for(1)
            wait_until(engine, ALL_DELIVERED)
    assert request.body == body
    given = {name: value for name, value in sent.items() if name not in {"accept", "x-forwarded-for"}}
    assert request.headers == {**given, "host": f"127.0.0.1:{fsp.port}", "content-length": str(len(body))}
    again = request_headers("PUT", request.headers)
    signature = read_signature("PUT", f"/bulkTransfers/{BULK_ID}", again)
    require_made_by(signature, request.body, [SourceKey(None, read_key(key.public).key)])


def test_a_request_that_cannot_be_read_back_is_said(engine: Engine, object_store: FolderObjectStore) -> None:
    content = put_content(object_store, b"no envelope")
    with Receiver() as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", content))
        with engine.begin() as tx:
            tx.execute(text("UPDATE delivery SET headers = NULL"))
        with DelivererThread(engine, object_store, SETTINGS):
            wait_until(
                engine, "SELECT count(*) > 0 FROM delivery_attempt WHERE error LIKE 'no body: CorruptRequest: %'"
            )
    assert fsp.requests == []
