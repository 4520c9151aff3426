"""Each of the 24 combinations is produced by the pipeline, and leads where seed 002 §4.3 says, for the last item and before.

Three cannot arise (X-33): #13, #15 and #16 are put in by hand. What "last" means is X-30's: the outcome is a function of all
rows, so a phase closes as the other rows let it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from domain.combinations import (
    BULK_FULFIL_REFUSED,
    FULFIL_DUPLICATE,
    FULFIL_MODIFIED,
    ITEM_TIMED_OUT,
    SEED_COMBINATIONS,
    TOPIC_BULK_PROCESSING,
    TOPIC_NOTIFICATION,
    TOPIC_TRANSFER_POSITION,
    TOPIC_TRANSFER_PREPARE,
    Combination,
)
from schemas.messages import BulkProcessing
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, refused, world
from tests.flows.test_authority_and_resends import refused_of
from tests.flows.test_expiry import expire
from tests.pipeline import Pipeline, Sent

Body = dict[str, Any]


def sent_as(pipeline: Pipeline, one: Combination) -> list[Sent]:
    """Every message of this topic, type, action and status, in the order of sending."""
    return [
        sent
        for sent in pipeline.sent
        if (sent.topic, sent.message.type, sent.message.action, sent.message.status)
        == (one.topic, one.type, one.action, one.status)
    ]


def numbered(number: int) -> Combination:
    return next(one for one in SEED_COMBINATIONS if one.number == number)


def state(pipeline: Pipeline, body: Body) -> str:
    return world(pipeline.engine).bulks[body["bulkTransferId"]][-1]


def item_states(pipeline: Pipeline, body: Body) -> list[str]:
    """The bulkProcessingStates of a bulk's items, in the order of the request."""
    with pipeline.engine.connect() as tx:
        rows = tx.execute(
            text(
                "SELECT a.bulk_processing_state FROM bulk_transfer_association a"
                " JOIN bulk_transfer b ON a.transfer_key / 10000 = b.bulk_key"
                " WHERE b.bulk_transfer_id = CAST(:id AS uuid) ORDER BY a.transfer_key"
            ),
            {"id": body["bulkTransferId"]},
        )
        return list(rows.scalars())


def posted(pipeline: Pipeline, *items: Body, until: tuple[str, ...] = ()) -> Body:
    body = bulk(items or (item(), item()), now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    for topic in until:
        pipeline.run(topic)
    return body


def hear_one_by_one(pipeline: Pipeline, body: Body) -> list[tuple[str, str]]:
    """Let bulk-processing hear its messages one at a time: (action, the bulk's state after it) each."""
    heard = []
    while pipeline.queues[TOPIC_BULK_PROCESSING]:
        message = pipeline.queues[TOPIC_BULK_PROCESSING][0]
        pipeline.step(TOPIC_BULK_PROCESSING, 1)
        heard.append((message.action, state(pipeline, body)))
    return heard


UNTIL_POSITION = ("topic-bulk-prepare", TOPIC_TRANSFER_PREPARE, TOPIC_TRANSFER_POSITION)


def test_1_the_adapters_post(pipeline: Pipeline) -> None:  # BULK-83, BULK-14, BULK-15, BULK-58
    body = posted(pipeline)
    [message] = pipeline.queues["topic-bulk-prepare"]
    assert (message.type, message.action, message.status) == ("bulk-prepare", "bulk-prepare", "success")
    pipeline.run("topic-bulk-prepare")
    assert world(pipeline.engine).bulks[body["bulkTransferId"]][0] == "RECEIVED"
    assert item_states(pipeline, body) == ["RECEIVED", "RECEIVED"]


def test_2_a_duplicate_bulk(pipeline: Pipeline) -> None:  # BULK-84
    body = posted(pipeline, item("5", currency="EUR"))
    pipeline.run()
    before = world(pipeline.engine)
    pipeline.post(body, source=PAYER)
    pipeline.run()
    assert [sent.message.to for sent in sent_as(pipeline, numbered(2))] == [PAYER]
    assert world(pipeline.engine) == before


def test_3_a_bulk_that_fails_validation(pipeline: Pipeline) -> None:  # BULK-85, X-31
    body = {**bulk([item()], now_ms=pipeline.now()), "payeeFsp": "ghost"}
    pipeline.post(body, source=PAYER)
    pipeline.run()
    assert [sent.message.to for sent in sent_as(pipeline, numbered(3))] == [PAYER]
    assert world(pipeline.engine).bulks[body["bulkTransferId"]] == ["RECEIVED", "PENDING_INVALID", "REJECTED"]


def test_4_the_split(pipeline: Pipeline) -> None:  # BULK-86, BULK-20, BULK-21
    body = posted(pipeline, until=("topic-bulk-prepare",))
    messages = [sent.message for sent in sent_as(pipeline, numbered(4))]
    assert len(messages) == 2
    assert len({message.expiration_ms for message in messages}) == 1
    assert state(pipeline, body) == "PENDING_PREPARE"


@pytest.mark.parametrize(("number", "packet"), [(5, "CCCC"), (6, None)])  # BULK-87, BULK-88
def test_5_and_6_a_transfer_id_that_was_used(pipeline: Pipeline, number: int, packet: str | None) -> None:
    used = item()
    posted(pipeline, used)
    pipeline.run()
    again = used if packet is None else {**used, "ilpPacket": packet}
    body = posted(pipeline, again, item(), until=UNTIL_POSITION)
    assert hear_one_by_one(pipeline, body) == [("prepare-duplicate", "PENDING_PREPARE"), ("bulk-prepare", "ACCEPTED")]
    assert item_states(pipeline, body) == ["RECEIVED_DUPLICATE", "ACCEPTED"]
    assert len(sent_as(pipeline, numbered(number))) == 1
    # The duplicate as the last one: the phase closes by the rows, with the other item accepted.
    body = posted(pipeline, item(), again, until=UNTIL_POSITION)
    pipeline.queues[TOPIC_BULK_PROCESSING].rotate(1)
    if pipeline.queues[TOPIC_BULK_PROCESSING][-1].action != "prepare-duplicate":
        pipeline.queues[TOPIC_BULK_PROCESSING].rotate(1)
    assert hear_one_by_one(pipeline, body)[-1] == ("prepare-duplicate", "ACCEPTED")


def test_7_and_9_a_valid_item(pipeline: Pipeline) -> None:  # BULK-89, BULK-91, BULK-22, BULK-23, BULK-24, BULK-26
    body = posted(pipeline, until=UNTIL_POSITION)
    assert len(sent_as(pipeline, numbered(7))) == 2
    assert hear_one_by_one(pipeline, body) == [("bulk-prepare", "PENDING_PREPARE"), ("bulk-prepare", "ACCEPTED")]
    assert len(sent_as(pipeline, numbered(9))) == 2
    assert item_states(pipeline, body) == ["ACCEPTED", "ACCEPTED"]


@pytest.mark.parametrize(
    ("number", "bad"),
    [(8, lambda: item("5", currency="EUR")), (10, lambda: item("999999999"))],  # BULK-90, BULK-92
)
def test_8_and_10_an_item_that_fails(pipeline: Pipeline, number: int, bad: Callable[[], Body]) -> None:
    # Before the last …
    body = posted(pipeline, bad(), item(), until=UNTIL_POSITION)
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)] == ["PENDING_PREPARE", "ACCEPTED"]
    assert item_states(pipeline, body) == ["RECEIVED_INVALID", "ACCEPTED"]
    assert sent_as(pipeline, numbered(number))[0].message.error_code in ("3100", "4001")
    # … and as the only one, where nothing is left to forward (BULK-126).
    body = posted(pipeline, bad(), until=UNTIL_POSITION)
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)] == ["REJECTED"]


def forwarded(pipeline: Pipeline, count: int = 2) -> Body:
    body = posted(pipeline, *[item() for _ in range(count)])
    pipeline.run()
    assert state(pipeline, body) == "ACCEPTED"
    return body


def fulfilled(pipeline: Pipeline, body: Body, *results: Body) -> None:
    pipeline.put(body["bulkTransferId"], answer(results), source=PAYEE)
    pipeline.run("topic-bulk-fulfil", "topic-transfer-fulfil", TOPIC_TRANSFER_POSITION)


def test_11_12_17_19_a_commit(pipeline: Pipeline) -> None:
    """BULK-93, BULK-94, BULK-99, BULK-101, BULK-27, BULK-28, BULK-29."""
    body = forwarded(pipeline)
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in body["individualTransfers"]]), source=PAYEE)
    [message] = pipeline.queues["topic-bulk-fulfil"]
    assert (message.type, message.action, message.status) == ("bulk-fulfil", "bulk-commit", "success")
    pipeline.run("topic-bulk-fulfil")
    assert state(pipeline, body) == "PROCESSING"
    pipeline.run("topic-transfer-fulfil", TOPIC_TRANSFER_POSITION)
    for number in (19, 17, 11):
        assert len(sent_as(pipeline, numbered(number))) == 2, number
    assert hear_one_by_one(pipeline, body) == [("bulk-commit", "PENDING_FULFIL"), ("bulk-commit", "COMPLETED")]
    assert item_states(pipeline, body) == ["COMPLETED", "COMPLETED"]


@pytest.mark.parametrize(
    ("injected", "item_state"),
    [
        (ITEM_TIMED_OUT, "EXPIRED"),  # BULK-95: reads as #24 does
        (FULFIL_MODIFIED, "FULFIL_DUPLICATE"),  # BULK-97
        (FULFIL_DUPLICATE, "FULFIL_DUPLICATE"),  # BULK-98
    ],
)
def test_13_15_16_put_in_by_hand(pipeline: Pipeline, injected: Combination, item_state: str) -> None:
    body = forwarded(pipeline)
    fulfilled(pipeline, body, *[committed(one) for one in body["individualTransfers"]])
    first, second = pipeline.queues[TOPIC_BULK_PROCESSING]
    by_hand = dataclasses.replace(
        first, action=injected.action, status=injected.status, error_code="3100", error_description="x"
    )
    pipeline.queues[TOPIC_BULK_PROCESSING].clear()
    pipeline.queues[TOPIC_BULK_PROCESSING].extend([by_hand, second])
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)] == ["PENDING_FULFIL", "COMPLETED"]
    assert item_states(pipeline, body) == [item_state, "COMPLETED"]
    # As the last one of a bulk in which the other was committed.
    body = forwarded(pipeline)
    fulfilled(pipeline, body, *[committed(one) for one in body["individualTransfers"]])
    first, second = pipeline.queues[TOPIC_BULK_PROCESSING]
    pipeline.queues[TOPIC_BULK_PROCESSING].clear()
    pipeline.queues[TOPIC_BULK_PROCESSING].extend(
        [first, dataclasses.replace(second, action=injected.action, status=injected.status)]
    )
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)] == ["PENDING_FULFIL", "COMPLETED"]


@pytest.mark.parametrize(
    ("number", "result", "item_state"),
    [
        (14, lambda one: refused(one), "REJECTED"),  # BULK-96
        (18, lambda one: {"transferId": one["transferId"]}, "FULFIL_INVALID"),  # BULK-100
    ],
)
def test_14_and_18_an_item_that_is_not_committed(
    pipeline: Pipeline, number: int, result: Callable[[Body], Body], item_state: str
) -> None:
    body = forwarded(pipeline)
    one, two = body["individualTransfers"]
    fulfilled(pipeline, body, result(one), committed(two))
    assert len(sent_as(pipeline, numbered(number))) == 1
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)][-1] == "COMPLETED"
    assert item_states(pipeline, body) == [item_state, "COMPLETED"]
    # Nothing committed at all: the same combination closes the bulk as REJECTED.
    body = forwarded(pipeline, count=1)
    fulfilled(pipeline, body, result(body["individualTransfers"][0]))
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)] == ["REJECTED"]


def test_20_a_fulfil_that_fails_validation(pipeline: Pipeline) -> None:  # BULK-102
    body = forwarded(pipeline)
    foreign = item()
    pipeline.put(body["bulkTransferId"], answer([refused_of(foreign)]), source=PAYEE)
    pipeline.run()
    # It answers the payee only (architecture §5), by a PUT /error.
    assert [(sent.message.to, sent.message.callback) for sent in sent_as(pipeline, BULK_FULFIL_REFUSED)] == [
        (PAYEE, "PUT_ERROR")
    ]
    assert state(pipeline, body) == "ACCEPTED"


def test_21_what_both_fsps_are_told(pipeline: Pipeline) -> None:  # BULK-103, BULK-33
    body = forwarded(pipeline)
    fulfilled(pipeline, body, *[committed(one) for one in body["individualTransfers"]])
    pipeline.run()
    told = [
        (sent.message.action, sent.message.to, sent.message.callback)
        for sent in pipeline.sent
        if sent.topic == TOPIC_NOTIFICATION
    ]
    assert told == [("bulk-prepare", PAYEE, "POST"), ("bulk-commit", PAYER, "PUT"), ("bulk-commit", PAYEE, "PUT")]


def test_22_expiry_before_the_reservation(pipeline: Pipeline) -> None:  # BULK-104
    body = posted(pipeline, until=("topic-bulk-prepare", TOPIC_TRANSFER_PREPARE))
    expire(pipeline.engine)
    pipeline.tick()
    assert len(sent_as(pipeline, numbered(22))) == 2
    assert [state_ for _, state_ in hear_one_by_one(pipeline, body)] == ["EXPIRING", "EXPIRED"]
    assert item_states(pipeline, body) == ["EXPIRED", "EXPIRED"]


def test_23_and_24_expiry_of_reservations(pipeline: Pipeline) -> None:  # BULK-105, BULK-106
    body = forwarded(pipeline)
    expire(pipeline.engine)
    pipeline.tick()
    assert len(sent_as(pipeline, numbered(23))) == 2
    pipeline.run(TOPIC_TRANSFER_POSITION)
    assert len(sent_as(pipeline, numbered(24))) == 2
    assert hear_one_by_one(pipeline, body) == [
        ("bulk-timeout-reserved", "EXPIRING"),
        ("bulk-timeout-reserved", "EXPIRED"),
    ]
    assert item_states(pipeline, body) == ["EXPIRED", "EXPIRED"]


def test_no_handler_takes_an_unknown_combination(pipeline: Pipeline) -> None:  # BULK-82
    from domain.combinations import UnknownCombination

    posted(pipeline, until=UNTIL_POSITION)
    message: BulkProcessing = pipeline.queues[TOPIC_BULK_PROCESSING][0]
    for topic, queue in pipeline.queues.items():
        for one in list(queue)[:1]:
            with pytest.raises(UnknownCombination):
                pipeline.handle(topic, [dataclasses.replace(one, action="abort")])
    with pytest.raises(UnknownCombination):
        pipeline.handle(TOPIC_BULK_PROCESSING, [dataclasses.replace(message, status="unknown")])
