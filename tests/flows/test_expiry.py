"""Expiry ends a bulk in every phase, gives every reservation back once, and races nobody into a second outcome."""

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from domain.combinations import (
    TOPIC_BULK_PROCESSING,
    TOPIC_TRANSFER_FULFIL,
    TOPIC_TRANSFER_POSITION,
    TOPIC_TRANSFER_PREPARE,
)
from domain.money import UNITS
from handlers.handler import Handler
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, world
from tests.flows.test_outcomes import final, results
from tests.pipeline import Pipeline


def expire(engine: Engine) -> None:
    """Move every time limit into the past, as if the clock had gone on."""
    with engine.begin() as tx:
        tx.execute(text("UPDATE open_expiration SET due_date = now() - interval '1 second'"))
        tx.execute(text("UPDATE transfer SET expiration = now() - interval '1 second'"))
        tx.execute(text("UPDATE bulk_transfer SET expiration = now() - interval '1 second'"))


def end_by_time(pipeline: Pipeline) -> None:
    for _ in range(4):
        pipeline.tick()
        pipeline.run()


def assert_expired(pipeline: Pipeline, body: dict[str, Any], *, forwarded: bool) -> None:
    callback, told = final(pipeline, PAYER)
    assert (callback, told["bulkTransferState"]) == ("PUT", "COMPLETED")
    assert [code for _, code in results(told)] == ["3303"] * len(body["individualTransfers"])
    after = world(pipeline.engine)
    assert after.bulks[body["bulkTransferId"]][-1] == "EXPIRED"
    assert set(after.positions.values()) == {0}
    if forwarded:
        assert final(pipeline, PAYEE)[1]["bulkTransferState"] == "COMPLETED"
    else:
        assert pipeline.notifications(PAYEE) == []
    with pipeline.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM open_expiration")).scalar_one() == 0


def test_expiry_before_any_transfer_was_prepared(pipeline: Pipeline) -> None:  # BULK-79, D16
    body = bulk([item(), item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run("topic-bulk-prepare")
    expire(pipeline.engine)
    pipeline.held = {TOPIC_TRANSFER_PREPARE}
    end_by_time(pipeline)
    assert_expired(pipeline, body, forwarded=False)
    # The prepare messages come late: their items have ended, and nothing is written.
    pipeline.held = set()
    pipeline.run()
    assert world(pipeline.engine).transfers == {}


def test_expiry_of_prepared_transfers_that_position_never_saw(pipeline: Pipeline) -> None:  # D16, BULK-127
    body = bulk([item(), item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run("topic-bulk-prepare", TOPIC_TRANSFER_PREPARE)
    expire(pipeline.engine)
    pipeline.held = {TOPIC_TRANSFER_POSITION}
    end_by_time(pipeline)
    assert_expired(pipeline, body, forwarded=False)
    pipeline.held = set()
    pipeline.run()
    assert world(pipeline.engine).transfers == {"EXPIRED_PREPARED": 2}
    assert set(world(pipeline.engine).positions.values()) == {0}


def test_expiry_of_reserved_transfers_whose_news_is_under_way(pipeline: Pipeline) -> None:  # BULK-80, BULK-81
    body = bulk([item(), item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run("topic-bulk-prepare", TOPIC_TRANSFER_PREPARE, TOPIC_TRANSFER_POSITION)
    expire(pipeline.engine)
    end_by_time(pipeline)
    assert_expired(pipeline, body, forwarded=False)
    assert world(pipeline.engine).transfers == {"EXPIRED_RESERVED": 2}


def test_expiry_while_the_payee_is_silent_and_its_late_answer(pipeline: Pipeline) -> None:  # BULK-44, BULK-127, D18
    items = [item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    assert world(pipeline.engine).positions[PAYER, "USD"] == 20 * UNITS
    expire(pipeline.engine)
    end_by_time(pipeline)
    assert_expired(pipeline, body, forwarded=True)
    told_before = len(pipeline.sent)
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items]), source=PAYEE)
    pipeline.run()
    assert len(pipeline.sent) == told_before, "a late fulfil has no effect and no answer"


def test_a_fulfil_whose_members_expire_under_way(pipeline: Pipeline) -> None:
    """Members that fulfil has not reached are given back, and the bulk ends once."""
    items = [item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items]), source=PAYEE)
    pipeline.run("topic-bulk-fulfil")
    pipeline.step(TOPIC_TRANSFER_FULFIL, 1)
    expire(pipeline.engine)
    pipeline.run()
    end_by_time(pipeline)
    _, told = final(pipeline, PAYER)
    assert told["bulkTransferState"] == "COMPLETED"
    assert [code for _, code in results(told)] == ["committed", "3303"]
    assert world(pipeline.engine).positions[PAYER, "USD"] == 10 * UNITS


@pytest.mark.parametrize(
    "lost",
    [TOPIC_TRANSFER_POSITION, TOPIC_BULK_PROCESSING],
)
def test_what_was_lost_on_its_way_is_pushed_forward_never_expired(pipeline: Pipeline, lost: str) -> None:  # D17
    """A transfer in RECEIVED_FULFIL, RECEIVED_ERROR, or ended with an open item, ends as it was decided."""
    items = [item(), item(), item()]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    wrong = {"transferId": items[1]["transferId"], "fulfilment": committed(items[0])["fulfilment"]}
    no = {"transferId": items[2]["transferId"], "errorInformation": {"errorCode": "5104", "errorDescription": "No"}}
    pipeline.put(body["bulkTransferId"], answer([committed(items[0]), wrong, no]), source=PAYEE)
    pipeline.held = {lost}
    pipeline.run()
    pipeline.queues[lost].clear()
    pipeline.held = set()
    expire(pipeline.engine)
    end_by_time(pipeline)
    _, told = final(pipeline, PAYER)
    assert [code for _, code in results(told)] == ["committed", "3100", "5104"]
    assert world(pipeline.engine).items == {"COMPLETED": 1, "FULFIL_INVALID": 1, "REJECTED": 1}


def race(engine: Engine, first: tuple[Handler, list[Any]], second: tuple[Handler, list[Any]]) -> list[str]:
    """Run two handlers at once, both having decided before either commits; says who lost."""
    barrier = threading.Barrier(2)
    lost: list[str] = []

    def run(handler: Handler, messages: list[Any]) -> None:
        try:
            with engine.connect() as tx:
                tx.execute(text("SELECT 1"))
                barrier.wait(timeout=10)
                handler.handle(tx, messages)
                tx.commit()
        except IntegrityError:
            lost.append(handler.name)

    threads = [threading.Thread(target=run, args=pair) for pair in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return lost


@pytest.mark.parametrize("attempt", range(5))
def test_a_commit_races_a_timeout(pipeline: Pipeline, attempt: int) -> None:  # D3, D14, BULK-135
    """Whoever is quicker, the transfer leaves RESERVED once, and the loser's second try finds the other's state."""
    items = [item() for _ in range(50)]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items]), source=PAYEE)
    pipeline.run("topic-bulk-fulfil")
    with pipeline.engine.begin() as tx:
        # Due for the timeout, not yet expired for fulfil: both want every transfer.
        tx.execute(text("UPDATE open_expiration SET due_date = now() - interval '1 second'"))
    messages = list(pipeline.queues[TOPIC_TRANSFER_FULFIL])
    fulfil = pipeline.handlers[TOPIC_TRANSFER_FULFIL]
    race(pipeline.engine, (fulfil, messages), (pipeline.timeout, []))
    pipeline.run()
    end_by_time(pipeline)
    _, told = final(pipeline, PAYER)
    outcomes = {code for _, code in results(told)}
    assert outcomes in ({"committed"}, {"3303"})
    after = world(pipeline.engine).positions
    assert after[PAYER, "USD"] == -after[PAYEE, "USD"] == (500 * UNITS if outcomes == {"committed"} else 0)


@pytest.mark.parametrize("attempt", range(5))
def test_a_reservation_races_a_timeout(pipeline: Pipeline, attempt: int) -> None:  # D3, BULK-122
    body = bulk([item() for _ in range(50)], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run("topic-bulk-prepare", TOPIC_TRANSFER_PREPARE)
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE open_expiration SET due_date = now() - interval '1 second'"))
    messages = list(pipeline.queues[TOPIC_TRANSFER_POSITION])
    race(pipeline.engine, (pipeline.handlers[TOPIC_TRANSFER_POSITION], messages), (pipeline.timeout, []))
    pipeline.run()
    end_by_time(pipeline)
    assert_expired(pipeline, body, forwarded=False)
    assert set(world(pipeline.engine).transfers) in ({"EXPIRED_PREPARED"}, {"EXPIRED_RESERVED"})
