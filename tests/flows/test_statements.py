"""The number of SQL statements of a batch is a constant: the same for 10 items as for 1,000 (D21)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from sqlalchemy import Engine, event

from domain.combinations import (
    TOPIC_BULK_FULFIL,
    TOPIC_BULK_GET,
    TOPIC_BULK_PREPARE,
    TOPIC_BULK_PROCESSING,
    TOPIC_NOTIFICATION,
    TOPIC_SINGLE_FULFIL,
    TOPIC_SINGLE_NOTIFICATION,
    TOPIC_SINGLE_POSITION,
    TOPIC_SINGLE_PREPARE,
    TOPIC_TRANSFER_FULFIL,
    TOPIC_TRANSFER_GET,
    TOPIC_TRANSFER_POSITION,
    TOPIC_TRANSFER_PREPARE,
)
from object_store.folder import FolderObjectStore
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, refused
from tests.flows.test_expiry import expire
from tests.pipeline import Pipeline

# In the order in which a bulk passes them; bulk-processing and position come twice.
PREPARE_PHASE = (TOPIC_BULK_PREPARE, TOPIC_TRANSFER_PREPARE, TOPIC_TRANSFER_POSITION, TOPIC_BULK_PROCESSING)
FULFIL_PHASE = (TOPIC_BULK_FULFIL, TOPIC_TRANSFER_FULFIL, TOPIC_TRANSFER_POSITION, TOPIC_BULK_PROCESSING)


@pytest.fixture
def parts() -> str:
    """What is counted here is SQL, which is the same on all parts."""
    return "queues"


@contextmanager
def counting(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    yield statements
    event.remove(engine, "before_cursor_execute", count)


def statements_of(engine: Engine, work: Callable[[], object]) -> int:
    with counting(engine) as statements:
        work()
    return len(statements)


def life(pipeline: Pipeline, items: int, bulks: int) -> dict[str, int]:
    """The statements of each handler for one batch that holds everything, phase by phase."""
    provision(pipeline.engine)
    bodies = [
        bulk([item("1"), *[item("10") for _ in range(items - 1)]], now_ms=pipeline.now(), expires_in_ms=3_600_000)
        for _ in range(bulks)
    ]
    for body in bodies:
        pipeline.post(body, source=PAYER)
    counts = {}
    for topic in PREPARE_PHASE:
        counts[f"prepare phase, {topic}"] = statements_of(pipeline.engine, partial(pipeline.step, topic, 10**6))
    for body in bodies:
        one, *others = body["individualTransfers"]
        pipeline.put(body["bulkTransferId"], answer([refused(one), *map(committed, others)]), source=PAYEE)
    for topic in FULFIL_PHASE:
        counts[f"fulfil phase, {topic}"] = statements_of(pipeline.engine, partial(pipeline.step, topic, 10**6))
    for body in bodies:
        pipeline.get(body["bulkTransferId"], source=PAYER)
    for topic in (TOPIC_BULK_GET, TOPIC_NOTIFICATION):
        counts[topic] = statements_of(pipeline.engine, partial(pipeline.step, topic, 10**6))
    return counts


def test_a_batch_takes_the_same_statements_for_few_items_and_for_many(
    pipeline: Pipeline, object_store: FolderObjectStore
) -> None:
    small = life(pipeline, items=5, bulks=2)
    large = life(Pipeline(pipeline.engine, object_store, pipeline.stream), items=200, bulks=5)
    assert small == large
    assert max(large.values()) <= 15, large


def test_a_tick_takes_the_same_statements_for_few_items_and_for_many(pipeline: Pipeline) -> None:
    counts = []
    for items in (3, 500):
        provision(pipeline.engine)
        pipeline.post(bulk([item() for _ in range(items)], now_ms=pipeline.now()), source=PAYER)
        pipeline.run()
        expire(pipeline.engine)
        counts.append(statements_of(pipeline.engine, pipeline.tick))
        pipeline.run()
    assert counts[0] == counts[1]


def singles_life(pipeline: Pipeline, count: int) -> dict[str, int]:
    """The statements of each handler of single transfers for one batch that holds everything."""
    bodies = [singles.transfer("1", now_ms=pipeline.now()) for _ in range(count)]
    for body in bodies:
        singles.post(pipeline, body)
    counts = {}
    for topic in (TOPIC_SINGLE_PREPARE, TOPIC_SINGLE_POSITION, TOPIC_SINGLE_NOTIFICATION):
        counts[f"prepare, {topic}"] = statements_of(pipeline.engine, partial(pipeline.step, topic, 10**6))
    for body in bodies:
        singles.put(pipeline, body["transferId"], singles.fulfilled(body))
    for topic in (TOPIC_SINGLE_FULFIL, TOPIC_SINGLE_POSITION, TOPIC_SINGLE_NOTIFICATION):
        counts[f"fulfil, {topic}"] = statements_of(pipeline.engine, partial(pipeline.step, topic, 10**6))
    for body in bodies:
        singles.get(pipeline, body["transferId"], source=PAYER)
    counts["get"] = statements_of(pipeline.engine, partial(pipeline.step, TOPIC_TRANSFER_GET, 10**6))
    return counts


def test_a_batch_of_single_transfers_takes_the_same_statements_for_few_and_for_many(pipeline: Pipeline) -> None:
    few, many = singles_life(pipeline, 2), singles_life(pipeline, 60)
    assert few == many
    assert max(many.values()) <= 12, many


@pytest.mark.parametrize("items", [1_000])
def test_a_thousand_items_are_one_batch_of_each_handler(pipeline: Pipeline, items: int) -> None:
    counts = life(pipeline, items=items, bulks=1)
    assert sum(counts.values()) <= 80, counts
