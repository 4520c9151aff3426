"""The deliverer among many callbacks: order, slots, giving up, stopping, and a database that goes away."""

import socket
import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from db.deliveries import AttemptOutcome, send_again
from db.engine import make_engine
from domain.delivery import RetryLimits
from handlers.deliverer import Deliverer, DelivererSettings, DelivererThread
from handlers.delivery_client import ClientLimits
from object_store.content import put_content
from object_store.folder import FolderObjectStore
from tests.callbacks.callback_rows import (
    ALL_DELIVERED,
    ALL_FINISHED,
    CLIENT,
    PUT_BODY,
    SETTINGS,
    add_participant,
    answer_to_get,
    final,
    forward,
    rows,
    wait_until,
    write,
)
from tests.callbacks.receiver import OK, UNAVAILABLE, RawRequest, Receiver, answer


def hang(_: RawRequest, connection: socket.socket) -> None:
    """Never answer; the wait ends when the deliverer gives up and closes."""
    connection.recv(1)


def test_callbacks_of_one_bulk_reach_an_fsp_in_order_whatever_fails(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    failures = iter([True, False, True, True, False, False] * 50)

    def respond(_: RawRequest, connection: socket.socket) -> None:
        connection.sendall(UNAVAILABLE if next(failures) else OK)

    bulks = [uuid4() for _ in range(6)]
    with Receiver(respond) as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        for number in range(5):
            body = put_content(object_store, str(number).encode())
            write(engine, *(answer_to_get("payerfsp", body, bulk) for bulk in bulks))
        with DelivererThread(engine, object_store, SETTINGS):
            wait_until(engine, ALL_DELIVERED)
    seen: dict[str, list[bytes]] = defaultdict(list)
    for request in fsp.requests:
        if request.body not in seen[request.path]:
            seen[request.path].append(request.body)
    assert list(seen.values()) == [[b"0", b"1", b"2", b"3", b"4"]] * 6
    assert len(fsp.requests) > 30, "some were tried again"


def test_a_slow_fsp_holds_its_own_slots_and_delays_nobody(engine: Engine, object_store: FolderObjectStore) -> None:
    release = threading.Event()

    def respond(_: RawRequest, connection: socket.socket) -> None:
        release.wait(30)
        connection.sendall(OK)

    client = replace(CLIENT, read_timeout_ms=60_000, attempt_timeout_ms=60_000)
    settings = replace(SETTINGS, concurrency_max=8, concurrency_per_fsp_max=4, client=client, lease_ms=120_000)
    with Receiver(respond) as slow, Receiver() as swift:
        add_participant(engine, "slow", slow.url)
        add_participant(engine, "swift", swift.url)
        content = put_content(object_store, PUT_BODY)
        write(engine, *(final("slow", content) for _ in range(40)), *(final("swift", content) for _ in range(40)))
        with DelivererThread(engine, object_store, settings):
            swift.wait_for(40)
            wait_until(engine, "SELECT count(*) = 40 FROM delivery WHERE state = 'DELIVERED' AND fsp = 'swift'")
            assert len(slow.wait_for(4)) == 4, "no more than its slots"
            release.set()
            wait_until(engine, ALL_DELIVERED)
    assert len(slow.requests) == 40


def test_an_fsp_that_only_fails_is_probed_with_one_slot_until_it_answers(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    lock, under_way, widths = threading.Lock(), 0, []
    response = UNAVAILABLE

    def respond(_: RawRequest, connection: socket.socket) -> None:
        nonlocal under_way
        with lock:
            under_way += 1
            widths.append(under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        connection.sendall(response)

    settings = replace(SETTINGS, concurrency_per_fsp_max=8, failures_until_probing=16)
    with Receiver(respond) as fsp:
        add_participant(engine, "away", fsp.url)
        content = put_content(object_store, PUT_BODY)
        write(engine, *(final("away", content) for _ in range(100)))
        with DelivererThread(engine, object_store, settings):
            fsp.wait_for(60)
            response = OK
            wait_until(engine, ALL_DELIVERED)
    assert max(widths[:16]) > 1
    assert set(widths[30:60]) == {1}, "the first 16 failures and what was under way beside them, then one at a time"
    assert max(widths[70:]) > 1


def test_nothing_waits_for_the_idle_poll(engine: Engine, object_store: FolderObjectStore) -> None:
    # A new row is heard of, a failed one has its time, and what stood behind another follows at once.
    def respond(_: RawRequest, connection: socket.socket) -> None:
        connection.sendall(UNAVAILABLE if len(fsp.requests) == 1 else OK)

    with Receiver(respond) as fsp, DelivererThread(engine, object_store, replace(SETTINGS, idle_poll_ms=600_000)):
        add_participant(engine, "payerfsp", fsp.url)
        for number in range(1, 4):
            bulk = uuid4()
            content = put_content(object_store, PUT_BODY)
            write(engine, answer_to_get("payerfsp", content, bulk), final("payerfsp", content, bulk))
            wait_until(engine, "SELECT count(*) = :n FROM delivery WHERE state = 'DELIVERED'", n=2 * number)


def test_a_failure_that_is_recorded_late_is_tried_again_at_its_time(
    engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause counts from the record of the failure: who counts from the failure itself looks too early, and only once."""
    transact = Deliverer._transact

    def slow_to_record(self: Deliverer, outcomes: list[AttemptOutcome], *others: Any) -> Any:
        if outcomes:
            # A busy machine: between the failure and the transaction that records it time passes.
            time.sleep(0.3)
        return transact(self, outcomes, *others)

    monkeypatch.setattr(Deliverer, "_transact", slow_to_record)
    monkeypatch.setattr("handlers.deliverer.random.random", lambda: 0.9)
    retry = RetryLimits(backoff_first_ms=200, backoff_max_ms=200)
    settings = replace(SETTINGS, idle_poll_ms=600_000, retry=retry)

    def respond(_: RawRequest, connection: socket.socket) -> None:
        connection.sendall(UNAVAILABLE if len(fsp.requests) == 1 else OK)

    with Receiver(respond) as fsp, DelivererThread(engine, object_store, settings):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        wait_until(engine, ALL_DELIVERED)


def test_a_callback_is_dead_when_its_attempts_are_used_up_and_operators_can_send_it_again(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    settings = replace(SETTINGS, retry=RetryLimits(backoff_first_ms=1, backoff_max_ms=2, attempts_max=3))
    with Receiver(answer(UNAVAILABLE)) as fsp, DelivererThread(engine, object_store, settings):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        wait_until(engine, "SELECT state = 'DEAD' FROM delivery UNION ALL SELECT false LIMIT 1")
        assert len(fsp.requests) == 3
        (last,) = rows(engine, "SELECT status, error FROM delivery_attempt WHERE attempt = 3")
        assert last == {"status": 503, "error": "gave up after 3 attempts"}
        fsp.respond = answer(OK)
        with engine.begin() as tx:
            (delivery_id,) = tx.execute(text("SELECT delivery_id FROM delivery")).scalars()
            assert send_again(tx, [delivery_id]) == [delivery_id]
        wait_until(engine, ALL_DELIVERED)
    assert len(fsp.requests) == 4
    assert len({(request.head, request.body) for request in fsp.requests}) == 1


def test_an_old_callback_is_given_up(engine: Engine, object_store: FolderObjectStore) -> None:
    settings = replace(SETTINGS, retry=RetryLimits(backoff_first_ms=1, backoff_max_ms=2, age_max_ms=3_600_000))
    with Receiver(answer(UNAVAILABLE)) as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        with engine.begin() as tx:
            tx.execute(text("UPDATE delivery SET renewed_date = now() - interval '61 minutes'"))
        with DelivererThread(engine, object_store, settings):
            wait_until(engine, ALL_FINISHED)
    assert rows(engine, "SELECT state, attempts FROM delivery") == [{"state": "DEAD", "attempts": 1}]


def test_a_forward_is_neither_made_nor_tried_again_past_the_expiration(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    settings = replace(SETTINGS, retry=RetryLimits(backoff_first_ms=50, backoff_max_ms=50))
    in_an_hour = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    with Receiver(answer(UNAVAILABLE)) as fsp, DelivererThread(engine, object_store, settings):
        add_participant(engine, "payeefsp", fsp.url)
        content = put_content(object_store, b"{}")
        write(
            engine,
            forward("payeefsp", content, not_after_ms=in_an_hour),
            forward("payeefsp", content, not_after_ms=1_000),
        )
        wait_until(engine, "SELECT count(*) >= 2 FROM delivery_attempt WHERE status IS NOT NULL")
        # The hour is over.
        with engine.begin() as tx:
            tx.execute(text("UPDATE delivery SET not_after_date = now() WHERE not_after_date > now()"))
        wait_until(engine, ALL_FINISHED)
    past, tried = rows(engine, "SELECT delivery_id, state, attempts FROM delivery ORDER BY not_after_date")
    assert (past["state"], past["attempts"]) == ("DEAD", 1)
    assert tried["state"] == "DEAD"
    attempts = rows(engine, "SELECT delivery_id, url, status, error FROM delivery_attempt")
    # The last one may have ended between its address and its sending.
    sent = [attempt for attempt in attempts if "not sent: " not in (attempt["error"] or "")]
    assert len(sent) == len(fsp.requests)
    assert {attempt["delivery_id"] for attempt in sent} == {tried["delivery_id"]}, "only what had not expired was sent"
    unsent = [attempt for attempt in attempts if attempt not in sent]
    assert {attempt["delivery_id"] for attempt in unsent} >= {past["delivery_id"]}
    assert all(attempt["error"].endswith("not sent: the transfer has expired") for attempt in unsent)


def test_an_endpoint_that_is_down_gets_its_callbacks_when_it_is_up(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    # D19: a restart of the payer's endpoint loses nothing.
    with socket.socket() as down:
        # Bound, so that the port is nobody else's; nobody listens, so whoever connects is refused.
        down.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        down.bind(("127.0.0.1", 0))
        port = down.getsockname()[1]
        add_participant(engine, "payerfsp", f"http://127.0.0.1:{port}")
        content = put_content(object_store, PUT_BODY)
        write(engine, *(final("payerfsp", content) for _ in range(20)))
        with DelivererThread(engine, object_store, SETTINGS):
            wait_until(engine, "SELECT min(attempts) >= 2 FROM delivery")
            with Receiver(port=port) as fsp:
                wait_until(engine, ALL_DELIVERED)
    assert len(fsp.requests) == 20
    assert rows(engine, "SELECT DISTINCT left(error, 13) AS e FROM delivery_attempt WHERE error IS NOT NULL") == [
        {"e": "ConnectError:"}
    ]


def test_a_stop_ends_what_is_under_way_and_starts_nothing(engine: Engine, object_store: FolderObjectStore) -> None:
    release = threading.Event()

    def respond(_: RawRequest, connection: socket.socket) -> None:
        release.wait(30)
        connection.sendall(OK)

    settings = replace(SETTINGS, concurrency_max=4, concurrency_per_fsp_max=4)
    with Receiver(respond) as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        content = put_content(object_store, PUT_BODY)
        write(engine, *(final("payerfsp", content) for _ in range(200)))
        with DelivererThread(engine, object_store, settings) as deliverer:
            fsp.wait_for(4)
            stopping = threading.Thread(target=deliverer.stop)
            stopping.start()
            release.set()
            stopping.join(60)
            assert not stopping.is_alive()
    found = rows(engine, "SELECT state, count(*) AS n, count(lease_date) AS leases FROM delivery GROUP BY 1 ORDER BY 1")
    delivered, waiting = found
    assert delivered["n"] == len(fsp.requests) >= 4
    assert (waiting["state"], waiting["leases"]) == ("WAITING", 0)


def test_a_stop_takes_no_longer_than_it_may(engine: Engine, object_store: FolderObjectStore) -> None:
    with Receiver(hang) as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        with DelivererThread(engine, object_store, replace(SETTINGS, stop_timeout_ms=50)) as deliverer:
            fsp.wait_for(1)
            began = time.monotonic()
            deliverer.stop()
            assert time.monotonic() - began < 5
    (row,) = rows(engine, "SELECT state, lease_date > now() AS leased FROM delivery")
    assert row == {"state": "WAITING", "leased": True}, "its lease runs out, and then it is sent again"


def test_a_deliverer_that_loses_its_database_connections_goes_on(
    engine: Engine, database_url: str, object_store: FolderObjectStore
) -> None:
    own = make_engine(database_url, application_name="deliverer-under-test")
    content = put_content(object_store, PUT_BODY)
    with Receiver() as fsp, DelivererThread(own, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        for number in range(1, 4):
            write(engine, final("payerfsp", content))
            fsp.wait_for(number)
            (cut,) = rows(
                engine,
                "SELECT count(pg_terminate_backend(pid)) AS connections FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'deliverer%'",
            )
            assert cut["connections"] > 0
        wait_until(engine, ALL_DELIVERED)
    own.dispose()
    assert len(fsp.requests) <= 6, "at most a repeat each, of an outcome that could not be recorded"


def test_several_deliverers_share_the_work(engine: Engine, object_store: FolderObjectStore) -> None:
    content = put_content(object_store, PUT_BODY)
    with Receiver() as fsp:
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, *(final("payerfsp", content) for _ in range(100)))
        with DelivererThread(engine, object_store, SETTINGS), DelivererThread(engine, object_store, SETTINGS):
            wait_until(engine, ALL_DELIVERED)
    assert len(fsp.requests) == len({request.path for request in fsp.requests}) == 100


def test_settings_that_would_repeat_a_running_attempt_are_refused() -> None:
    with pytest.raises(ValueError, match="lease_ms must be longer"):
        DelivererSettings(lease_ms=10_000, client=ClientLimits(attempt_timeout_ms=10_000))
    with pytest.raises(ValueError, match="concurrency_per_fsp_max"):
        DelivererSettings(concurrency_max=4, concurrency_per_fsp_max=8)
