"""A message that cannot be worked on ends what it was about through the state tables, or stops the handler."""

from typing import Any

import pytest

from domain.combinations import (
    TOPIC_BULK_FULFIL,
    TOPIC_BULK_GET,
    TOPIC_BULK_PREPARE,
    TOPIC_BULK_PROCESSING,
    TOPIC_TRANSFER_FULFIL,
    TOPIC_TRANSFER_POSITION,
    TOPIC_TRANSFER_PREPARE,
)
from handlers.handler import Crash
from schemas.messages import Tick
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, world
from tests.flows.test_authority_and_resends import errors
from tests.flows.test_outcomes import final, results
from tests.pipeline import Pipeline


def give_up(pipeline: Pipeline, topic: str) -> None:
    """Take the first message of a topic away and give up on it, as the loop does with a dead letter."""
    message = pipeline.queues[topic].popleft()
    with pipeline.engine.begin() as tx:
        outputs = pipeline.handlers[topic].give_up(tx, message, "a test says so")
    pipeline.send(outputs)


def posted(pipeline: Pipeline, *until: str) -> dict[str, Any]:
    body = bulk([item(), item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    for topic in until:
        pipeline.run(topic)
    return body


def test_a_post_ends_refused(pipeline: Pipeline) -> None:
    body = posted(pipeline)
    give_up(pipeline, TOPIC_BULK_PREPARE)
    pipeline.run()
    assert errors(pipeline, PAYER)[0].startswith("2001")
    assert world(pipeline.engine).bulks[body["bulkTransferId"]][-1] == "REJECTED"


def test_an_item_ends_invalid_and_its_bulk_goes_on(pipeline: Pipeline) -> None:
    body = posted(pipeline, TOPIC_BULK_PREPARE)
    give_up(pipeline, TOPIC_TRANSFER_PREPARE)
    finish(pipeline, body, ["2001", "committed"])
    assert world(pipeline.engine).items == {"RECEIVED_INVALID": 1, "COMPLETED": 1}


def test_an_item_that_was_prepared_already_is_left_alone(pipeline: Pipeline) -> None:
    body = posted(pipeline, TOPIC_BULK_PREPARE)
    again = pipeline.queues[TOPIC_TRANSFER_PREPARE][0]
    pipeline.run(TOPIC_TRANSFER_PREPARE)
    pipeline.queues[TOPIC_TRANSFER_PREPARE].append(again)
    give_up(pipeline, TOPIC_TRANSFER_PREPARE)
    finish(pipeline, body, ["committed", "committed"])
    pipeline.queues[TOPIC_TRANSFER_PREPARE].append(again)
    sent_before = len(pipeline.sent)
    give_up(pipeline, TOPIC_TRANSFER_PREPARE)
    assert len(pipeline.sent) == sent_before


def test_a_reservation_ends_rejected_and_its_bulk_goes_on(pipeline: Pipeline) -> None:
    body = posted(pipeline, TOPIC_BULK_PREPARE, TOPIC_TRANSFER_PREPARE)
    give_up(pipeline, TOPIC_TRANSFER_POSITION)
    finish(pipeline, body, ["2001", "committed"])
    assert world(pipeline.engine).transfers == {"ABORTED_REJECTED": 1, "COMMITTED": 1}


def test_an_answer_ends_as_an_error_and_the_money_goes_back(pipeline: Pipeline) -> None:
    body = posted(pipeline)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in body["individualTransfers"]]), source=PAYEE)
    pipeline.run(TOPIC_BULK_FULFIL)
    give_up(pipeline, TOPIC_TRANSFER_FULFIL)
    pipeline.run()
    assert [code for _, code in results(final(pipeline, PAYER)[1])] == ["2001", "committed"]


def test_a_put_is_answered_and_the_bulk_waits_for_another(pipeline: Pipeline) -> None:
    body = posted(pipeline)
    pipeline.run()
    good = answer([committed(one) for one in body["individualTransfers"]])
    pipeline.put(body["bulkTransferId"], good, source=PAYEE)
    give_up(pipeline, TOPIC_BULK_FULFIL)
    pipeline.run()
    assert errors(pipeline, PAYEE)[0].startswith("2001")
    pipeline.put(body["bulkTransferId"], good, source=PAYEE)
    pipeline.run()
    assert final(pipeline, PAYER)[1]["bulkTransferState"] == "COMPLETED"


def test_a_get_is_forgotten(pipeline: Pipeline) -> None:
    body = posted(pipeline)
    pipeline.get(body["bulkTransferId"], source=PAYER)
    give_up(pipeline, TOPIC_BULK_GET)
    assert pipeline.sent == []


def test_money_on_its_way_stops_the_handler(pipeline: Pipeline) -> None:
    """Nobody may give up on a commit, a release, news about an item, or the clock."""
    body = posted(pipeline)
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in body["individualTransfers"]]), source=PAYEE)
    pipeline.run(TOPIC_BULK_FULFIL)
    repeated = pipeline.queues[TOPIC_TRANSFER_FULFIL][0]
    pipeline.run(TOPIC_TRANSFER_FULFIL)
    pipeline.queues[TOPIC_TRANSFER_FULFIL].append(repeated)
    for topic in (TOPIC_TRANSFER_FULFIL, TOPIC_TRANSFER_POSITION):
        with pytest.raises(Crash, match="money is on its way"):
            give_up(pipeline, topic)
    pipeline.run(TOPIC_TRANSFER_POSITION)
    with pytest.raises(Crash, match="cannot be worked on"):
        give_up(pipeline, TOPIC_BULK_PROCESSING)
    with pytest.raises(Crash, match="time cannot be skipped"), pipeline.engine.begin() as tx:
        pipeline.timeout.give_up(tx, Tick(0), "a test says so")


def finish(pipeline: Pipeline, body: dict[str, Any], expected: list[str]) -> None:
    """The payee commits what it was sent; the payer's list has these codes."""
    pipeline.run()
    [post] = [one for one in pipeline.notifications(PAYEE) if one.callback == "POST"]
    sent = pipeline.body(post)["individualTransfers"]
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in sent]), source=PAYEE)
    pipeline.run()
    assert [code for _, code in results(final(pipeline, PAYER)[1])] == expected
