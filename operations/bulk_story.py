"""Everything the database knows about one bulk, in the order in which it happened: what `bulk-switch bulk show` prints.

Three reads of indexed ranges: the bulk with its steps, its items (one range of keys), its callbacks with every attempt.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, select

from db.deliveries import Attempt, Delivery, list_attempts, list_deliveries
from db.tables import (
    bulk_transfer,
    bulk_transfer_association,
    bulk_transfer_error,
    bulk_transfer_state_change,
    transfer,
)
from domain.delivery import Resource
from domain.identifiers import ITEMS_PER_BULK, item_number_of
from domain.money import format_amount, from_numeric
from domain.states import BULK_API_STATES, OPEN_ITEM_STATES, START, BulkState, ItemState

# A bulk has four callbacks, and one more for every GET, resend or refused fulfil; of those only the newest are shown.
_CALLBACKS_MAX = 50


@dataclass(frozen=True, slots=True)
class Step:
    from_state: str
    to_state: str
    reason: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Item:
    """`number` counts from 1 in the order of the request; amount and currency are there once it became a transfer."""

    number: int
    transfer_id: UUID
    state: ItemState
    amount: str | None
    currency: str | None
    error_code: str | None
    error_description: str | None
    changed: datetime


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback, and every attempt to deliver it."""

    delivery: Delivery
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """So many items ended in this state with this error."""

    state: ItemState
    error_code: str | None
    error_description: str | None
    items: int


@dataclass(frozen=True, slots=True)
class BulkStory:
    bulk_transfer_id: UUID
    bulk_quote_id: UUID | None
    payer_fsp: str
    payee_fsp: str | None
    state: BulkState
    api_state: str
    received: datetime
    expiration: datetime | None
    item_count: int
    error_code: str | None
    error_description: str | None
    steps: tuple[Step, ...]
    items: tuple[Item, ...]
    callbacks: tuple[Callback, ...]

    def items_by_state(self) -> dict[ItemState, int]:
        """How many items are in each state, in the order of a life; states without items are left out."""
        counts = Counter(item.state for item in self.items)
        return {state: counts[state] for state in ItemState if counts[state]}

    def reasons(self) -> list[Reason]:
        """Why items ended without being committed, the most frequent reason first."""
        counts = Counter(
            (item.state, item.error_code, item.error_description)
            for item in self.items
            if item.state not in OPEN_ITEM_STATES and item.state is not ItemState.COMPLETED
        )
        return [Reason(*key, items=count) for key, count in counts.most_common()]


def read_bulk_story(tx: Connection, bulk_transfer_id: UUID) -> BulkStory | None:
    """The story of a bulk; None when bulk-prepare has not recorded one under this id."""
    bulk = tx.execute(
        select(bulk_transfer, bulk_transfer_error.c.error_code, bulk_transfer_error.c.error_description)
        .outerjoin(bulk_transfer_error, bulk_transfer_error.c.bulk_key == bulk_transfer.c.bulk_key)
        .where(bulk_transfer.c.bulk_transfer_id == bulk_transfer_id)
    ).one_or_none()
    if bulk is None:
        return None
    steps = _read_steps(tx, bulk.bulk_key)
    state = BulkState(steps[-1].to_state)
    return BulkStory(
        bulk_transfer_id=bulk.bulk_transfer_id,
        bulk_quote_id=bulk.bulk_quote_id,
        payer_fsp=bulk.payer_fsp,
        payee_fsp=bulk.payee_fsp,
        state=state,
        api_state=BULK_API_STATES[state],
        received=bulk.received_date,
        expiration=bulk.expiration,
        item_count=bulk.item_count,
        error_code=bulk.error_code,
        error_description=bulk.error_description,
        steps=steps,
        items=_read_items(tx, bulk.bulk_key),
        callbacks=_read_callbacks(tx, bulk_transfer_id),
    )


def count_items_by_state(tx: Connection, bulk_transfer_id: UUID) -> dict[str, int]:
    """How many items of the bulk are in each state now; {} while the bulk is not recorded."""
    bulk_key = tx.execute(
        select(bulk_transfer.c.bulk_key).where(bulk_transfer.c.bulk_transfer_id == bulk_transfer_id)
    ).scalar_one_or_none()
    if bulk_key is None:
        return {}
    state = bulk_transfer_association.c.bulk_processing_state
    rows = tx.execute(select(state, func.count()).where(_items_of(bulk_key)).group_by(state)).all()
    return {row[0]: row[1] for row in rows}


def _items_of(bulk_key: int) -> ColumnElement[bool]:
    return bulk_transfer_association.c.transfer_key.between(
        bulk_key * ITEMS_PER_BULK, (bulk_key + 1) * ITEMS_PER_BULK - 1
    )


def _read_steps(tx: Connection, bulk_key: int) -> tuple[Step, ...]:
    """The steps in their order: each begins where the one before ended, which no clock can confuse."""
    change = bulk_transfer_state_change.c
    rows = tx.execute(
        select(change.from_state, change.to_state, change.reason, change.created_date).where(
            change.bulk_key == bulk_key
        )
    )
    by_from_state = {row.from_state: Step(*row) for row in rows}
    steps = []
    state = START
    while state in by_from_state:
        steps.append(by_from_state[state])
        state = by_from_state[state].to_state
    return tuple(steps)


def _read_items(tx: Connection, bulk_key: int) -> tuple[Item, ...]:
    item, money = bulk_transfer_association.c, transfer.c
    rows = tx.execute(
        select(
            item.transfer_key,
            item.transfer_id,
            item.bulk_processing_state,
            money.amount,
            money.currency_id,
            item.error_code,
            item.error_description,
            item.last_processed_date,
        )
        .outerjoin(transfer, money.transfer_key == item.transfer_key)
        .where(_items_of(bulk_key))
        .order_by(item.transfer_key)
    )
    return tuple(
        Item(
            item_number_of(key),
            transfer_id,
            ItemState(state),
            None if amount is None else format_amount(from_numeric(amount)),
            *rest,
        )
        for key, transfer_id, state, amount, *rest in rows
    )


def _read_callbacks(tx: Connection, bulk_transfer_id: UUID) -> tuple[Callback, ...]:
    newest_first = list_deliveries(
        tx, rows_max=_CALLBACKS_MAX, resource=Resource.BULK_TRANSFERS, entity_id=bulk_transfer_id
    )
    return tuple(Callback(one, tuple(list_attempts(tx, one.delivery_id))) for one in reversed(newest_first))
