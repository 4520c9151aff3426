"""A message about a single transfer that cannot be worked on ends it through the state tables, or stops the handler."""

import pytest
from sqlalchemy import text

from domain.combinations import (
    TOPIC_SINGLE_FULFIL,
    TOPIC_SINGLE_NOTIFICATION,
    TOPIC_SINGLE_POSITION,
    TOPIC_SINGLE_PREPARE,
    TOPIC_TRANSFER_GET,
)
from handlers.handler import Crash
from tests import singles
from tests.bulks import PAYEE, PAYER, STRANGER
from tests.flows.test_giving_up import give_up
from tests.flows.test_single_transfers import position
from tests.pipeline import Pipeline
from tests.singles import failed, fulfilled, states, told, transfer


def test_a_post_is_answered_and_can_be_sent_again(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    singles.post(pipeline, body)
    give_up(pipeline, TOPIC_SINGLE_PREPARE)
    pipeline.run()
    assert states(pipeline, body["transferId"]) == []
    [refused] = told(pipeline, PAYER, body["transferId"])
    assert refused.body == failed("2001", "Internal server error - the transfer could not be prepared")
    singles.post(pipeline, body)
    pipeline.run()
    assert states(pipeline, body["transferId"])[-1] == "RESERVED"


def test_a_reservation_ends_rejected(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    singles.post(pipeline, body)
    pipeline.run(TOPIC_SINGLE_PREPARE)
    give_up(pipeline, TOPIC_SINGLE_POSITION)
    pipeline.run()
    assert states(pipeline, body["transferId"]) == ["RECEIVED_PREPARE", "ABORTED_REJECTED"]
    [refused] = told(pipeline, PAYER, body["transferId"])
    assert refused.body == failed("2001", "Internal server error - the transfer could not be reserved")
    with pipeline.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM open_expiration")).scalar_one() == 0


@pytest.mark.parametrize(("state", "to_payee"), [("COMMITTED", ["POST"]), ("RESERVED", ["POST", "PATCH"])])
def test_an_answer_ends_as_an_error_and_the_money_goes_back(
    pipeline: Pipeline, state: str, to_payee: list[str]
) -> None:
    body = transfer(now_ms=pipeline.now())
    transfer_id = body["transferId"]
    singles.post(pipeline, body)
    pipeline.run()
    singles.put(pipeline, transfer_id, fulfilled(body, state))
    give_up(pipeline, TOPIC_SINGLE_FULFIL)
    pipeline.run()
    assert states(pipeline, transfer_id)[-1] == "ABORTED_ERROR"
    assert position(pipeline, PAYER) == 0
    [final] = told(pipeline, PAYER, transfer_id)
    assert final.body == failed("2001", "Internal server error - the answer to this transfer could not be worked on")
    # What the hub says in a PATCH is valid by the document, so it says when: `told` looks.
    assert [one.callback for one in told(pipeline, PAYEE, transfer_id)] == to_payee


def test_an_answer_of_a_stranger_is_given_up_without_a_trace(pipeline: Pipeline) -> None:  # D12
    body = transfer(now_ms=pipeline.now())
    singles.post(pipeline, body)
    pipeline.run()
    singles.put(pipeline, body["transferId"], fulfilled(body), source=STRANGER)
    give_up(pipeline, TOPIC_SINGLE_FULFIL)
    assert states(pipeline, body["transferId"])[-1] == "RESERVED"


def test_with_money_on_its_way_nobody_gives_up(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    singles.post(pipeline, body)
    pipeline.run()
    singles.put(pipeline, body["transferId"], fulfilled(body))
    again = pipeline.queues[TOPIC_SINGLE_FULFIL][0]
    pipeline.run(TOPIC_SINGLE_FULFIL)
    with pytest.raises(Crash, match="money is on its way"):
        give_up(pipeline, TOPIC_SINGLE_POSITION)
    pipeline.queues[TOPIC_SINGLE_FULFIL].append(again)
    with pytest.raises(Crash, match="money is on its way"):
        give_up(pipeline, TOPIC_SINGLE_FULFIL)


def test_an_outcome_must_be_told_and_a_question_need_not(pipeline: Pipeline) -> None:
    body = transfer(now_ms=pipeline.now())
    singles.post(pipeline, body)
    pipeline.run(TOPIC_SINGLE_PREPARE, TOPIC_SINGLE_POSITION)
    with pytest.raises(Crash, match="cannot be told its outcome"):
        give_up(pipeline, TOPIC_SINGLE_NOTIFICATION)
    singles.get(pipeline, body["transferId"], source=PAYER)
    sent_before = len(pipeline.sent)
    give_up(pipeline, TOPIC_TRANSFER_GET)
    assert len(pipeline.sent) == sent_before
