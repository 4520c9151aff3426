"""The notification handler: one row per callback, written once, whatever is read again."""

from typing import cast
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine

from domain.combinations import (
    BULK_FINAL,
    BULK_FORWARD,
    BULK_GET_ERROR,
    SEED_COMBINATIONS,
    TOPIC_NOTIFICATION,
    UnknownCombination,
)
from handlers.handler import BadMessage, Crash, Handler
from handlers.notification import NotificationHandler
from schemas.messages import Notification
from tests.callbacks.callback_rows import (
    add_participant,
    answer_to_get,
    count_statements,
    final,
    final_error,
    forward,
    notification,
    rows,
    write,
)

BOUND_MS = 1_900_000_000_123

# A combination of another topic (#4): none that this one knows.
FOREIGN = SEED_COMBINATIONS[3]


def test_it_is_a_handler_of_its_topic() -> None:
    handler: Handler = NotificationHandler()
    assert (handler.name, handler.topic, handler.message) == ("notification", TOPIC_NOTIFICATION, Notification)
    assert handler.weight(final("payerfsp")) == 1


def test_each_callback_becomes_one_row_with_its_headers(engine: Engine) -> None:
    # BULK-33: both sides are told. BULK-78: the forward and the end are notifications.
    add_participant(engine, "payerfsp")
    add_participant(engine, "payeefsp")
    bulk, request = uuid4(), uuid4()
    write(
        engine,
        forward("payeefsp", "c/1", bulk, not_after_ms=BOUND_MS),
        final("payeefsp", "c/2", bulk),
        final_error("payerfsp", "c/3", bulk),
        notification(
            BULK_GET_ERROR, "payerfsp", "c/4", bulk_transfer_id=bulk, callback="PUT_ERROR", request_id=request
        ),
    )
    found = rows(
        engine,
        "SELECT fsp, kind, callback, content, request_id, state, attempts, headers ->> 'fspiop-uri' AS uri,"
        " headers ? 'accept' AS accepts, headers ->> 'fspiop-source' AS source,"
        " CAST(extract(epoch FROM not_after_date) * 1000 AS bigint) AS not_after_ms FROM delivery ORDER BY delivery_id",
    )
    end = f"bulkTransfers/{bulk}"
    assert [tuple(row.values()) for row in found] == [
        ("payeefsp", "FORWARD", "POST", "c/1", None, "WAITING", 0, "/bulkTransfers", True, "Hub", BOUND_MS),
        ("payeefsp", "FINAL", "PUT", "c/2", None, "WAITING", 0, f"/payeefsp/{end}", False, "Hub", None),
        ("payerfsp", "FINAL", "PUT_ERROR", "c/3", None, "WAITING", 0, f"/payerfsp/{end}/error", False, "Hub", None),
        ("payerfsp", "ANSWER", "PUT_ERROR", "c/4", request, "WAITING", 0, f"/payerfsp/{end}/error", False, "Hub", None),
    ]  # fmt: skip  # one row of the table a line


def test_a_repeat_changes_nothing_and_a_second_outcome_cannot_be_written(engine: Engine) -> None:
    # D8, D9 (one final callback per side), BULK-59: what was told first stands.
    add_participant(engine, "payerfsp")
    bulk = uuid4()
    first, answer = final("payerfsp", "c/1", bulk), answer_to_get("payerfsp", "c/2", bulk)
    write(engine, first, answer, first)
    before = rows(engine, "SELECT * FROM delivery ORDER BY delivery_id")
    write(engine, first, answer, final_error("payerfsp", "c/other", bulk))
    assert rows(engine, "SELECT * FROM delivery ORDER BY delivery_id") == before
    assert len(before) == 2


def test_two_requests_for_the_same_bulk_get_two_answers(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    bulk = uuid4()
    write(engine, answer_to_get("payerfsp", bulk_transfer_id=bulk), answer_to_get("payerfsp", bulk_transfer_id=bulk))
    assert len(rows(engine, "SELECT 1 FROM delivery WHERE kind = 'ANSWER'")) == 2


def test_the_number_of_statements_is_the_same_for_one_message_and_for_a_thousand(engine: Engine) -> None:
    for number in range(20):
        add_participant(engine, f"fsp{number}")
    one = count_statements(engine, lambda: write(engine, final("fsp0")))
    many = count_statements(engine, lambda: write(engine, *(final(f"fsp{number % 20}") for number in range(1000))))
    assert len(many) == len(one) == 2
    assert rows(engine, "SELECT count(*) AS n FROM delivery") == [{"n": 1001}]


def test_rows_are_numbered_in_the_order_of_the_messages(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    messages = [final("payerfsp") for _ in range(200)]
    write(engine, *messages)
    order = [row["entity_id"].bytes for row in rows(engine, "SELECT * FROM delivery ORDER BY delivery_id")]
    assert order == [message.bulk_transfer_id for message in messages]


def test_nobody_is_told_when_the_receiver_is_unknown(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    add_participant(engine, "payerfsp")
    handler = NotificationHandler()
    with engine.begin() as tx:
        handler.handle(tx, [final("nobody"), final("payerfsp")])
    assert rows(engine, "SELECT fsp FROM delivery") == [{"fsp": "payerfsp"}]
    assert handler.unknown_receivers == 1
    assert "'nobody' is no participant" in caplog.text


def test_an_inactive_receiver_is_told_all_the_same(engine: Engine) -> None:
    # Reference §11.9.
    add_participant(engine, "payerfsp", is_active=False)
    write(engine, final("payerfsp"))
    assert rows(engine, "SELECT fsp FROM delivery") == [{"fsp": "payerfsp"}]


def test_the_hub_speaks_under_the_name_it_was_given(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    with engine.begin() as tx:
        NotificationHandler(hub_name="switch").handle(tx, [final("payerfsp")])
    assert rows(engine, "SELECT headers ->> 'fspiop-source' AS source FROM delivery") == [{"source": "switch"}]


def test_an_unknown_combination_is_a_dead_letter_and_blamed_alone(engine: Engine) -> None:
    # BULK-82.
    add_participant(engine, "payerfsp")
    handler, strange = NotificationHandler(), notification(FOREIGN, "payerfsp")
    with engine.begin() as tx:
        with pytest.raises(UnknownCombination):
            handler.handle(tx, [final("payerfsp"), strange])
        with pytest.raises(BadMessage, match="type prepare, action bulk-prepare, status success"):
            handler.handle(tx, [strange])
        assert handler.give_up(tx, strange, "unknown") == []
    assert rows(engine, "SELECT 1 FROM delivery") == []


def test_nobody_may_give_up_on_an_outcome(engine: Engine) -> None:
    with engine.begin() as tx, pytest.raises(Crash, match="payerfsp cannot be told its outcome: because"):
        NotificationHandler().give_up(tx, final("payerfsp"), "because")


@pytest.mark.parametrize(
    "message",
    [
        notification(BULK_FINAL, "payerfsp", callback="POST"),
        notification(BULK_FORWARD, "payerfsp", callback="PUT"),
        notification(BULK_FORWARD, "payerfsp", callback="POST", request_id=uuid4()),
        notification(BULK_FINAL, "payerfsp", callback="DELETE"),
    ],
)
def test_a_callback_that_contradicts_its_combination_stops_the_process(engine: Engine, message: Notification) -> None:
    add_participant(engine, "payerfsp")
    with engine.begin() as tx, pytest.raises(Crash, match="payerfsp"):
        NotificationHandler().handle(tx, [message])


def test_deliverers_are_woken_when_a_new_row_is_committed_and_not_by_a_repeat(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    message = final("payerfsp")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        raw = cast(psycopg.Connection, connection.connection.dbapi_connection)
        raw.execute("LISTEN delivery")
        write(engine, message)
        assert len(list(raw.notifies(timeout=10, stop_after=1))) == 1
        write(engine, message)
        write(engine, final("payerfsp"))
        # The repeat comes first and would be heard first; the row after it is the only one that is.
        assert len(list(raw.notifies(timeout=10, stop_after=1))) == 1
        assert list(raw.notifies(timeout=0)) == []
