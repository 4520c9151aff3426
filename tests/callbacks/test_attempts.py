"""One attempt after the other, at endpoints that are slow, rude, misplaced or gone: the same bytes until it arrives."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from db.deliveries import ClaimedDelivery
from domain.delivery import RetryLimits
from handlers.deliverer import Deliverer, DelivererSettings, DelivererThread
from handlers.delivery_client import Answer
from object_store.content import put_content
from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStoreUnavailable
from tests.callbacks.callback_rows import (
    ALL_DELIVERED,
    ALL_FINISHED,
    ERROR_BODY,
    PUT_BODY,
    SETTINGS,
    add_participant,
    final,
    final_error,
    rows,
    wait_until,
    write,
)
from tests.callbacks.receiver import OK, UNAVAILABLE, RawRequest, Receiver, answer
from tests.fspiop_document import check_callback, requires_document


def quick(**limits: Any) -> DelivererSettings:
    return replace(SETTINGS, client=replace(SETTINGS.client, **limits))


def hang(_: RawRequest, connection: socket.socket) -> None:
    """Never answer; the wait ends when the deliverer gives up and closes."""
    connection.recv(1)


def test_callbacks_arrive_with_their_own_headers_and_nothing_else(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    with Receiver() as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        bulk = uuid4()
        write(
            engine,
            final("payerfsp", put_content(object_store, PUT_BODY), bulk),
            final_error("payerfsp", put_content(object_store, ERROR_BODY)),
        )
        requests = {request.path.endswith("/error"): request for request in fsp.wait_for(2)}
        wait_until(engine, ALL_DELIVERED)
    put, error = requests[False], requests[True]
    assert put.line == f"PUT /bulkTransfers/{bulk} HTTP/1.1"
    assert (put.body, error.body) == (PUT_BODY, ERROR_BODY)
    assert set(put.headers) == {
        "content-length", "content-type", "date", "fspiop-destination", "fspiop-http-method", "fspiop-source",
        "fspiop-uri", "host",
    }  # fmt: skip  # reference §11.12: a PUT carries no Accept
    (attempt, _) = rows(engine, "SELECT * FROM delivery_attempt ORDER BY delivery_id")
    assert (attempt["attempt"], attempt["status"], attempt["error"]) == (1, 200, None)
    assert attempt["url"] == f"{fsp.url}/bulkTransfers/{bulk}"


@requires_document
def test_what_arrives_is_valid_by_the_document(engine: Engine, object_store: FolderObjectStore) -> None:
    with Receiver() as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        write(
            engine,
            final("payerfsp", put_content(object_store, PUT_BODY)),
            final_error("payerfsp", put_content(object_store, ERROR_BODY)),
        )
        for request in fsp.wait_for(2):
            assert check_callback("PUT", request.path, request.headers, request.body) == []


def test_a_failed_callback_is_tried_again_with_the_same_bytes_until_it_arrives(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    # D19, X-36.
    answers = [UNAVAILABLE, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", b"", b"nonsense\r\n\r\n", OK]

    def respond(_: RawRequest, connection: socket.socket) -> None:
        response = answers[len(fsp.requests) - 1]
        connection.sendall(response)
        if response in {b"", b"nonsense\r\n\r\n"}:
            connection.shutdown(socket.SHUT_RDWR)

    with Receiver(respond) as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        wait_until(engine, ALL_DELIVERED)
    assert len(fsp.requests) == 5
    assert len({(request.head, request.body) for request in fsp.requests}) == 1
    attempts = rows(engine, "SELECT attempt, status, error FROM delivery_attempt ORDER BY attempt")
    assert [(one["attempt"], one["status"]) for one in attempts] == [(1, 503), (2, 404), (3, None), (4, None), (5, 200)]
    assert attempts[2]["error"].startswith("RemoteProtocolError: ")
    assert rows(engine, "SELECT attempts, finished_date IS NOT NULL AS done, lease_date FROM delivery") == [
        {"attempts": 5, "done": True, "lease_date": None}
    ]


def test_a_redirect_is_not_followed(engine: Engine, object_store: FolderObjectStore) -> None:
    with Receiver() as elsewhere, Receiver() as fsp:
        redirect = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere.url}/\r\ncontent-length: 0\r\n\r\n"
        fsp.respond = answer(redirect.encode())
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        with DelivererThread(engine, object_store, SETTINGS):
            fsp.wait_for(2)
            fsp.respond = answer(OK)
            wait_until(engine, ALL_DELIVERED)
    assert elsewhere.requests == []


def test_an_endless_answer_is_cut_off_and_its_status_counts(engine: Engine, object_store: FolderObjectStore) -> None:
    sent = 0

    def respond(_: RawRequest, connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65_536)

    with Receiver(respond) as fsp, DelivererThread(engine, object_store, quick(response_body_max_bytes=1000)):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        wait_until(engine, ALL_DELIVERED)
    assert sent < 100_000_000


def test_an_answer_that_drips_is_cut_off_and_its_status_counts(engine: Engine, object_store: FolderObjectStore) -> None:
    def respond(request: RawRequest, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx")
        hang(request, connection)

    with Receiver(respond) as fsp, DelivererThread(engine, object_store, quick(response_body_wait_ms=20)):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        wait_until(engine, ALL_DELIVERED)
    (attempt,) = rows(engine, "SELECT status, duration_ms FROM delivery_attempt")
    assert attempt["status"] == 200
    # The event loop may end a wait a little early.
    assert 15 <= attempt["duration_ms"] < 5_000


@pytest.mark.parametrize("limit", ["read_timeout_ms", "attempt_timeout_ms"])
def test_silence_is_a_failed_attempt(engine: Engine, object_store: FolderObjectStore, limit: str) -> None:
    with Receiver(hang) as fsp, DelivererThread(engine, object_store, quick(**{limit: 200})):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        fsp.wait_for(2)
        fsp.respond = answer(OK)
        wait_until(engine, ALL_DELIVERED)
    # On a busy machine the time may end while the body is still being read.
    sent = "SELECT status, error FROM delivery_attempt WHERE error NOT LIKE 'no body%' ORDER BY attempt"
    first = rows(engine, sent)[0]
    assert first["status"] is None
    assert first["error"].startswith("ReadTimeout" if limit == "read_timeout_ms" else "no answer within 200 ms")


def test_an_inactive_fsp_gets_its_callbacks(engine: Engine, object_store: FolderObjectStore) -> None:
    # Reference §11.9.
    with Receiver() as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url, is_active=False)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        fsp.wait_for(1)


def test_a_missing_endpoint_is_said_and_found_once_it_is_there(engine: Engine, object_store: FolderObjectStore) -> None:
    add_participant(engine, "payerfsp")
    write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
    with Receiver() as fsp, DelivererThread(engine, object_store, SETTINGS):
        wait_until(engine, "SELECT count(*) >= 2 FROM delivery_attempt")
        with engine.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO participant_endpoint (participant_id, type, value)"
                    " SELECT participant_id, 'FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT', :value FROM participant"
                    " WHERE name = 'payerfsp'"
                ),
                {"value": f"{fsp.url}/bulkTransfers/{{{{ID}}}}"},
            )
        wait_until(engine, ALL_DELIVERED)
    first = rows(engine, "SELECT url, status, error FROM delivery_attempt ORDER BY attempt")[0]
    error = "payerfsp has no endpoint of type FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT"
    assert first == {"url": None, "status": None, "error": error}


def test_a_missing_body_and_an_impossible_address_harm_no_other_callback(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    add_participant(engine, "odd", "http://[::1")
    add_participant(engine, "ödd", "http://127.0.0.1:1")
    content = put_content(object_store, PUT_BODY)
    with Receiver() as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("odd", content), final("ödd", content), final("payerfsp", "content/ff/missing"))
        write(engine, final("payerfsp", content))
        with DelivererThread(engine, object_store, SETTINGS):
            fsp.wait_for(1)
            wait_until(engine, "SELECT count(DISTINCT delivery_id) = 4 FROM delivery_attempt")
    errors = rows(
        engine,
        "SELECT fsp, error FROM delivery JOIN delivery_attempt USING (delivery_id) WHERE attempt = 1 AND status IS NULL"
        " ORDER BY delivery_id",
    )
    assert [row["fsp"] for row in errors] == ["odd", "ödd", "payerfsp"]
    assert errors[0]["error"].startswith("no address: ")
    assert errors[2]["error"] == "no body: ObjectMissing: content/ff/missing"
    assert all(len(row["error"]) <= 200 for row in errors)


def test_ids_in_addresses_are_those_of_the_bulk(engine: Engine, object_store: FolderObjectStore) -> None:
    bulk = UUID("b51ec534-ee48-4575-b6a9-ead2955b8069")
    with Receiver() as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final_error("payerfsp", put_content(object_store, ERROR_BODY), bulk))
        (request,) = fsp.wait_for(1)
    assert request.path == f"/bulkTransfers/{bulk}/error"
    assert request.headers["fspiop-uri"] == f"/payerfsp/bulkTransfers/{bulk}/error"


class AwayStore(FolderObjectStore):
    """Does not answer until it is told."""

    is_away = True

    def get(self, key: str) -> bytes:
        if self.is_away:
            raise ObjectStoreUnavailable("no answer")
        return super().get(key)


def test_an_object_store_that_is_away_is_no_fsps_fault(engine: Engine, tmp_path: Path) -> None:
    store = AwayStore(tmp_path / "objects")
    # One failure of its own would have the FSP probed, and two attempts are all that a callback has.
    settings = replace(SETTINGS, failures_until_probing=1, own_pause_max_ms=20)
    settings = replace(settings, retry=replace(settings.retry, attempts_max=2))
    with Receiver() as fsp, DelivererThread(engine, store, settings):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(store, PUT_BODY)))
        attempts = "SELECT count(*) FILTER (WHERE error = 'no body: no answer') >= 5 FROM delivery_attempt"
        wait_until(engine, attempts)
        store.is_away = False
        wait_until(engine, ALL_DELIVERED)
        assert [request.body for request in fsp.wait_for(1)] == [PUT_BODY]


def test_after_an_outage_of_the_object_store_an_fsp_has_all_its_attempts(engine: Engine, tmp_path: Path) -> None:
    store = AwayStore(tmp_path / "objects")
    settings = replace(SETTINGS, own_pause_max_ms=20, retry=replace(SETTINGS.retry, attempts_max=3))
    with Receiver(answer(UNAVAILABLE)) as fsp, DelivererThread(engine, store, settings):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(store, PUT_BODY)))
        wait_until(engine, "SELECT count(*) >= 5 FROM delivery_attempt")
        store.is_away = False
        wait_until(engine, ALL_FINISHED)
        assert len(fsp.requests) == 3
    (last,) = rows(engine, "SELECT status, error FROM delivery_attempt ORDER BY attempt DESC LIMIT 1")
    assert last == {"status": 503, "error": "gave up after 3 attempts"}


@pytest.mark.parametrize("attempts_max", [1, 200])
def test_an_outage_of_the_object_store_is_asked_about_ever_less_often(
    engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch, attempts_max: int
) -> None:
    monkeypatch.setattr("handlers.deliverer.random.random", lambda: 1.0)
    retry = RetryLimits(backoff_first_ms=500, attempts_max=attempts_max)
    deliverer = Deliverer(engine, object_store, replace(SETTINGS, own_pause_max_ms=30_000, retry=retry))
    spoiled = Answer(None, None, "no body: no answer", 1, is_ours=True)
    delays = []
    for attempt in range(1, 9):
        # What is ours is taken off: the FSP's own attempts stand still.
        outcome = deliverer._outcome(claimed(attempt), spoiled, elapsed_ms=0)
        assert (outcome.state, outcome.is_ours) == ("WAITING", True)
        delays.append(outcome.delay_ms)
    assert delays == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
    too_old = replace(claimed(9), age_ms=retry.age_max_ms)
    assert deliverer._outcome(too_old, spoiled, elapsed_ms=0).state == "DEAD", "the age still ends it"


def claimed(attempt: int) -> ClaimedDelivery:
    return ClaimedDelivery(
        1, attempt, "bulkTransfers", uuid4(), "payerfsp", "PUT", "content/00/none", {}, None, 1, 0, None
    )
