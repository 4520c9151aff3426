"""Defects of Mojaloop that no other flow test shows to be absent, by their numbers in mojaloop-pipeline.md §8."""

import dataclasses
from typing import Any

from sqlalchemy import text

from domain.combinations import TOPIC_BULK_PREPARE, TOPIC_TRANSFER_FULFIL
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, world
from tests.flows.over_http import over_http, whole_database
from tests.flows.test_authority_and_resends import errors, shown
from tests.flows.test_expiry import end_by_time, expire
from tests.flows.test_outcomes import final, results
from tests.pipeline import Pipeline

Body = dict[str, Any]


def posted(pipeline: Pipeline, items: list[Body], **changes: Any) -> Body:
    body = bulk(items, now_ms=pipeline.now(), **changes)
    pipeline.post(body, source=PAYER)
    pipeline.run()
    return body


def test_d5_an_answer_that_fits_no_reserved_transfer_does_not_stop_its_bulk(pipeline: Pipeline) -> None:
    """D5: unknown, not reserved, ended, of a kind nobody sends: nothing is written for it, and the bulk still ends."""
    items = [item(), item(), item("5", currency="EUR")]
    body = posted(pipeline, items)
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items[:2]]), source=PAYEE)
    pipeline.run("topic-bulk-fulfil")
    first, second = pipeline.queues[TOPIC_TRANSFER_FULFIL]
    unknown = dataclasses.replace(first, transfer_key=first.transfer_key + 5_000)
    not_reserved = dataclasses.replace(first, transfer_key=second.transfer_key + 1)
    before = whole_database(pipeline.engine)
    assert pipeline.handle(TOPIC_TRANSFER_FULFIL, [unknown, not_reserved]) == []
    assert whole_database(pipeline.engine) == before
    pipeline.handle(TOPIC_TRANSFER_FULFIL, [unknown, first, not_reserved, second, first])
    pipeline.queues[TOPIC_TRANSFER_FULFIL].clear()
    pipeline.run()
    told = final(pipeline, PAYER)[1]
    assert [code for _, code in results(told)] == ["committed", "committed", "3100"]
    assert pipeline.handle(TOPIC_TRANSFER_FULFIL, [first, second]) == []


def test_d10_every_result_of_a_put_that_was_answered_is_worked_on(pipeline: Pipeline) -> None:
    """D10: the answer is kept as a whole before its record is published, so no result of the 1,000 is ever missing."""
    items = [item("1") for _ in range(1_000)]
    body = posted(pipeline, items)
    sent = answer([committed(one) for one in items])
    with over_http(pipeline, signed=False) as edge:
        assert edge.send("PUT", f"/bulkTransfers/{body['bulkTransferId']}", sent, PAYEE).status_code == 200
        edge.deliver()
    assert [code for _, code in results(final(pipeline, PAYER)[1])] == ["committed"] * 1_000
    assert world(pipeline.engine).transfers == {"COMMITTED": 1_000}


def test_d15_an_expiration_that_has_passed_today_refuses_the_bulk_as_a_whole(pipeline: Pipeline) -> None:
    """D15: Mojaloop compares days, takes the bulk, refuses each transfer, and then says nothing."""
    posted(pipeline, [item()], expires_in_ms=-1)
    assert errors(pipeline, PAYER) == ["3100 Generic validation error - expiration is not in the future"]
    assert world(pipeline.engine).transfers == {}


def test_d15_an_expiration_that_passes_on_the_way_is_told_item_by_item(pipeline: Pipeline) -> None:
    body = bulk([item(), item()], now_ms=pipeline.now(), expires_in_ms=60_000)
    pipeline.post(body, source=PAYER, received_at_ms=pipeline.now())
    pipeline.run(TOPIC_BULK_PREPARE)
    queue = pipeline.queues["topic-transfer-prepare"]
    late = [dataclasses.replace(message, expiration_ms=pipeline.now() - 1) for message in queue]
    queue.clear()
    queue.extend(late)
    pipeline.run()
    callback, told = final(pipeline, PAYER)
    assert (callback, told["bulkTransferState"]) == ("PUT", "COMPLETED")
    assert [code for _, code in results(told)] == ["3303", "3303"]


def test_d18_a_bulk_that_is_committed_after_a_later_one_has_expired_expires_too(pipeline: Pipeline) -> None:
    """D18: Mojaloop remembers the highest id it has seen, and never looks at a smaller one that was committed later."""
    slow = bulk([item()], now_ms=pipeline.now())
    pipeline.post(slow, source=PAYER)
    message = pipeline.queues[TOPIC_BULK_PREPARE].popleft()
    with pipeline.engine.begin() as tx:
        # Its keys are drawn, its rows are written, and nobody sees them.
        outputs = pipeline.handlers[TOPIC_BULK_PREPARE].handle(tx, [message])
        quick = posted(pipeline, [item()])
        expire(pipeline.engine)
        end_by_time(pipeline)
        assert world(pipeline.engine).bulks == {
            quick["bulkTransferId"]: ["RECEIVED", "PENDING_PREPARE", "ACCEPTED", "EXPIRING", "EXPIRED"]
        }
    with pipeline.engine.connect() as tx:
        keys = text("SELECT bulk_transfer_id FROM bulk_transfer ORDER BY bulk_key")
        assert [str(id_) for id_ in tx.execute(keys).scalars()] == [slow["bulkTransferId"], quick["bulkTransferId"]]
    pipeline.send(outputs)
    expire(pipeline.engine)
    end_by_time(pipeline)
    assert world(pipeline.engine).bulks[slow["bulkTransferId"]][-1] == "EXPIRED"
    assert set(world(pipeline.engine).positions.values()) == {0}


def test_d27_items_without_a_transfer_row_stand_in_every_list(pipeline: Pipeline) -> None:
    """D27: duplicates, and items that expired before they were prepared, have no row to join; the lists are whole."""
    used = item()
    posted(pipeline, [used])
    items = [item(), used, item()]
    body = posted(pipeline, items)
    expected = [
        (items[0]["transferId"], "committed"),
        (used["transferId"], "3100"),
        (items[2]["transferId"], "committed"),
    ]
    assert [id_ for id_, _ in results(shown(pipeline, body["bulkTransferId"], PAYER))] == [id_ for id_, _ in expected]
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in items if one is not used]), source=PAYEE)
    pipeline.run()
    [told] = [
        pipeline.body(one)
        for one in pipeline.notifications(PAYER)
        if one.request_id is None and one.bulk_transfer_id.hex() == body["bulkTransferId"].replace("-", "")
    ]
    assert results(told) == expected
    assert results(shown(pipeline, body["bulkTransferId"], PAYER)) == expected
    with pipeline.engine.connect() as tx:
        count = text("SELECT count(*) FROM transfer WHERE transfer_id = CAST(:id AS uuid)")
        assert tx.execute(count, {"id": used["transferId"]}).scalar_one() == 1
