"""Messages that come twice, in any order, in batches of any size: the same end state, and no second outcome."""

import random
from collections import Counter

import pytest
from sqlalchemy import text

from tests.bulks import PAYEE, PAYER, STRANGER, answer, bulk, committed, item, provision, refused, world
from tests.flows.test_outcomes import final, results
from tests.pipeline import Pipeline


@pytest.mark.parametrize("seed", range(6))
def test_shuffled_and_repeated_delivery_changes_nothing(pipeline: Pipeline, seed: int) -> None:
    """D3, D7, D8, D9, D14, BULK-120, BULK-130, BULK-134: correctness rests on no order and on no key's partition."""
    chance = random.Random(seed)
    provision(pipeline.engine, cap=280)
    shuffled = Pipeline(
        pipeline.engine,
        pipeline.store,
        pipeline.stream,
        batch_items=chance.choice([1, 3, 7, 1_000]),
        seed=seed,
        copies=2,
        transport=pipeline.transport,
    )
    items = [item("10") for _ in range(30)]
    body = bulk(items, now_ms=shuffled.now())
    shuffled.post(body, source=PAYER)
    shuffled.run()
    [post] = {one.content: one for one in shuffled.notifications(PAYEE) if one.callback == "POST"}.values()
    reserved = shuffled.body(post)["individualTransfers"]
    assert len(reserved) == 28
    shuffled.put(
        body["bulkTransferId"], answer([*map(committed, reserved[:20]), *map(refused, reserved[20:])]), source=PAYEE
    )
    shuffled.run()
    told = final(shuffled, PAYER)[1]
    assert told["bulkTransferState"] == "COMPLETED"
    assert Counter(code for _, code in results(told)) == {"committed": 20, "5104": 8, "4200": 2}
    after = world(shuffled.engine)
    assert after.items == {"COMPLETED": 20, "REJECTED": 8, "RECEIVED_INVALID": 2}
    assert after.positions == {(PAYER, "USD"): 2_000_000, (PAYEE, "USD"): -2_000_000, (STRANGER, "USD"): 0}
    with shuffled.engine.connect() as tx:
        rows = tx.execute(text("SELECT fsp, kind FROM delivery ORDER BY fsp, kind")).all()
    assert [tuple(row) for row in rows] == [(PAYEE, "FINAL"), (PAYEE, "FORWARD"), (PAYER, "FINAL")]


def test_every_message_of_a_finished_bulk_again(pipeline: Pipeline) -> None:  # D3, BULK-134
    """Replayed from the start, handler by handler: nothing is written, and nothing new is said."""
    items = [item(), item(), item("5", currency="EUR")]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    post_message = pipeline.queues["topic-bulk-prepare"][0]
    pipeline.run()
    pipeline.put(body["bulkTransferId"], answer([committed(items[0]), refused(items[1])]), source=PAYEE)
    put_message = pipeline.queues["topic-bulk-fulfil"][0]
    pipeline.run()
    before = world(pipeline.engine)
    recorded = list(pipeline.sent)
    pipeline.sent.clear()
    pipeline.handle("topic-bulk-prepare", [post_message])
    pipeline.handle("topic-bulk-fulfil", [put_message])
    for sent in recorded:
        pipeline.handle(sent.topic, [sent.message])
    pipeline.run()
    assert pipeline.sent == []
    assert world(pipeline.engine) == before
    with pipeline.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM delivery")).scalar_one() == 3
