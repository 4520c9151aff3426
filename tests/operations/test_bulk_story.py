"""A bulk's story is read from its rows: steps in their order, items in the request's order, callbacks with attempts."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, insert

from db import tables
from domain.identifiers import transfer_key
from domain.states import BulkState, ItemState
from operations.bulk_story import Reason, count_items_by_state, read_bulk_story

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def bulk_transfer_id(engine: Engine) -> UUID:
    """A bulk of four: one committed, one refused by the payee, two refused by the switch for the same reason."""
    with engine.begin() as tx:
        bulk_transfer_id = uuid4()
        bulk_key = add_bulk(tx, bulk_transfer_id, items=4)
        add_steps(tx, bulk_key, "-", "RECEIVED", "PENDING_PREPARE", "ACCEPTED", "PROCESSING", "COMPLETED")
        no_account = ("3100", "Generic validation error - no account")
        add_item(tx, bulk_key, 1, ItemState.COMPLETED)
        add_item(tx, bulk_key, 2, ItemState.RECEIVED_INVALID, no_account)
        add_item(tx, bulk_key, 3, ItemState.REJECTED, ("5104", "Payee rejected"))
        add_item(tx, bulk_key, 4, ItemState.RECEIVED_INVALID, no_account)
        # Another bulk's items are the neighbours in the table, on both sides.
        add_item(tx, bulk_key - 1, 9_999, ItemState.RECEIVED)
        add_item(tx, bulk_key + 1, 1, ItemState.RECEIVED)
        add_transfer(tx, bulk_key, 1, "12.5000")
        add_callback(tx, bulk_transfer_id, "payeefsp", "FORWARD", "POST", statuses=[503, 202])
        add_callback(tx, bulk_transfer_id, "payerfsp", "FINAL", "PUT", statuses=[])
        add_callback(tx, uuid4(), "payerfsp", "FINAL", "PUT", statuses=[200])
    return bulk_transfer_id


def test_the_steps_are_in_the_order_in_which_they_were_made(engine: Engine, bulk_transfer_id: UUID) -> None:
    with engine.connect() as tx:
        story = read_bulk_story(tx, bulk_transfer_id)
    assert story is not None
    # All steps have the same time: only from_state tells their order.
    assert [step.to_state for step in story.steps] == [
        "RECEIVED",
        "PENDING_PREPARE",
        "ACCEPTED",
        "PROCESSING",
        "COMPLETED",
    ]
    assert (story.state, story.api_state) == (BulkState.COMPLETED, "COMPLETED")


def test_items_are_those_of_the_bulk_in_the_order_of_the_request(engine: Engine, bulk_transfer_id: UUID) -> None:
    with engine.connect() as tx:
        story = read_bulk_story(tx, bulk_transfer_id)
        counts = count_items_by_state(tx, bulk_transfer_id)
    assert story is not None
    assert [(one.number, one.state, one.amount) for one in story.items] == [
        (1, ItemState.COMPLETED, "12.5"),
        (2, ItemState.RECEIVED_INVALID, None),
        (3, ItemState.REJECTED, None),
        (4, ItemState.RECEIVED_INVALID, None),
    ]
    assert story.items_by_state() == counts == {"RECEIVED_INVALID": 2, "COMPLETED": 1, "REJECTED": 1}
    assert story.reasons() == [
        Reason(ItemState.RECEIVED_INVALID, "3100", "Generic validation error - no account", 2),
        Reason(ItemState.REJECTED, "5104", "Payee rejected", 1),
    ]


def test_callbacks_are_those_of_the_bulk_with_every_attempt(engine: Engine, bulk_transfer_id: UUID) -> None:
    with engine.connect() as tx:
        story = read_bulk_story(tx, bulk_transfer_id)
    assert story is not None
    assert [(one.delivery.fsp, one.delivery.callback, [a.status for a in one.attempts]) for one in story.callbacks] == [
        ("payeefsp", "POST", [503, 202]),
        ("payerfsp", "PUT", []),
    ]


def test_a_bulk_that_nobody_recorded_has_no_story(engine: Engine) -> None:
    with engine.connect() as tx:
        assert read_bulk_story(tx, uuid4()) is None
        assert count_items_by_state(tx, uuid4()) == {}


def add_bulk(tx: Connection, bulk_transfer_id: UUID, items: int) -> int:
    row = insert(tables.bulk_transfer).values(
        bulk_transfer_id=bulk_transfer_id,
        payer_fsp="payerfsp",
        payee_fsp="payeefsp",
        expiration=AT,
        item_count=items,
        request_id=uuid4(),
        received_date=AT,
    )
    return int(tx.execute(row.returning(tables.bulk_transfer.c.bulk_key)).scalar_one())


def add_steps(tx: Connection, bulk_key: int, *states: str) -> None:
    steps = [
        {"bulk_key": bulk_key, "from_state": one, "to_state": other, "created_date": AT}
        for one, other in itertools.pairwise(states)
    ]
    tx.execute(insert(tables.bulk_transfer_state_change), list(reversed(steps)))


def add_item(
    tx: Connection, bulk_key: int, number: int, state: ItemState, error: tuple[str | None, str | None] = (None, None)
) -> None:
    tx.execute(
        insert(tables.bulk_transfer_association).values(
            transfer_key=transfer_key(bulk_key, number),
            transfer_id=uuid4(),
            bulk_processing_state=state,
            error_code=error[0],
            error_description=error[1],
        )
    )


def add_transfer(tx: Connection, bulk_key: int, number: int, amount: str) -> None:
    tx.execute(
        insert(tables.transfer).values(
            transfer_key=transfer_key(bulk_key, number),
            transfer_id=uuid4(),
            hash=b"",
            amount=Decimal(amount),
            currency_id="USD",
            expiration=AT,
        )
    )


def add_callback(
    tx: Connection, bulk_transfer_id: UUID, fsp: str, kind: str, callback: str, statuses: list[int]
) -> None:
    row = insert(tables.delivery).values(
        entity_id=bulk_transfer_id, fsp=fsp, kind=kind, callback=callback, content="content/x", headers={}
    )
    delivery_id = tx.execute(row.returning(tables.delivery.c.delivery_id)).scalar_one()
    for number, status in enumerate(statuses, start=1):
        tx.execute(
            insert(tables.delivery_attempt).values(
                delivery_id=delivery_id, attempt=number, status=status, duration_ms=3
            )
        )
