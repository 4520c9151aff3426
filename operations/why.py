"""Why a bulk or a transfer is where it is: everything that happened to it, in time order, and what it waits for now.

Rows give every step of the bulk and the transfer, the item's state, and every attempt of every callback; the topics give the
messages that they still hold (operations/message_search.py). What has one time is told in the order of the pipeline: a step
stands before the messages that it sent. `waits_for` makes the sentence at the end from the rows alone, by the rules that the
timeout handler follows (domain/timeout.py), so it holds also where the topics are long empty.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.deliveries import list_attempts, list_deliveries
from db.stories import (
    TransferFacts,
    TransferStep,
    accounts_of_bulk,
    read_item,
    read_transfer,
    read_transfer_steps,
)
from domain.delivery import Resource
from domain.identifiers import bulk_key_of
from domain.money import format_amount, from_numeric
from operations.bulk_story import BulkStory, Callback, read_bulk_story
from operations.message_search import FoundMessage, Search, Wanted
from operations.waiting import bulk_waits_for, item_waits_for, single_waits_for

_CALLBACKS_MAX = 50


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `about` is bulk, item, transfer, message or callback; the other fields are of one or two."""

    at: datetime
    about: str
    what: str
    reason: str | None = None
    position: str | None = None
    error: str | None = None
    place: str | None = None
    message: dict[str, Any] | None = None
    url: str | None = None
    status: int | None = None
    duration_ms: int | None = None


@dataclass(slots=True)
class Why:
    """A story from the rows; `add_messages` completes it with what the topics hold."""

    bulk: BulkStory | None
    transfer: TransferFacts | None
    steps: list[TransferStep]
    callbacks: tuple[Callback, ...]
    wanted: Wanted
    conclusion: str
    events: list[Event] = field(default_factory=list)
    records_read: int = 0
    unread: list[str] = field(default_factory=list)

    def add_messages(self, search: Search) -> None:
        self.records_read, self.unread = search.records_read, search.unread
        self.events += [_message(one) for one in search.messages]
        self.events.sort(key=lambda event: (event.at, _RANKS[event.about]))


_RANKS = {"bulk": 0, "item": 1, "transfer": 2, "message": 3, "callback": 4}


def why_bulk(tx: Connection, bulk_transfer_id: UUID) -> Why | None:
    """The story of a bulk as a whole; None when none was recorded."""
    bulk = read_bulk_story(tx, bulk_transfer_id)
    if bulk is None:
        return None
    wanted = Wanted(frozenset({bulk_transfer_id.bytes}), str(bulk_transfer_id), None, _milliseconds(bulk.received))
    why = Why(bulk, None, [], bulk.callbacks, wanted, bulk_waits_for(bulk))
    why.events = [*_bulk_events(bulk), *_callback_events(bulk.callbacks)]
    return why


def why_item(tx: Connection, bulk_transfer_id: UUID, transfer_id: UUID) -> Why | None:
    """The story of one transfer of a bulk; None when the bulk has no such item."""
    facts = read_item(tx, bulk_transfer_id, transfer_id)
    return None if facts is None else _why(tx, facts)


def why_transfer(tx: Connection, transfer_id: UUID) -> Why | None:
    """The story of a transfer, single or of a bulk; None when there is none with this transferId."""
    facts = read_transfer(tx, transfer_id)
    return None if facts is None else _why(tx, facts)


def _why(tx: Connection, facts: TransferFacts) -> Why:
    steps = read_transfer_steps(tx, facts.transfer_key)
    bulk = None if facts.bulk_transfer_id is None else read_bulk_story(tx, facts.bulk_transfer_id)
    accounts = [account for account in (facts.payer_account, facts.payee_account) if account is not None]
    if bulk is not None and not accounts:
        accounts = list(accounts_of_bulk(tx, bulk_key_of(facts.transfer_key)))
    entity = facts.transfer_id if facts.bulk_transfer_id is None else facts.bulk_transfer_id
    wanted = Wanted(
        frozenset({entity.bytes, *(str(account).encode() for account in accounts)}),
        None if facts.bulk_transfer_id is None else str(facts.bulk_transfer_id),
        str(facts.transfer_id),
        _milliseconds(facts.received),
    )
    callbacks = _callbacks(tx, facts.transfer_id) if bulk is None else bulk.callbacks
    conclusion = single_waits_for(facts, steps, callbacks) if bulk is None else item_waits_for(facts, steps, bulk)
    why = Why(bulk, facts, steps, callbacks, wanted, conclusion)
    why.events = [
        *([] if bulk is None else _bulk_events(bulk)),
        *_item_events(facts, bulk),
        *(_step_event(step) for step in steps),
        *_callback_events(callbacks),
    ]
    if bulk is None:
        why.events.append(Event(facts.received, "transfer", "received by the edge"))
    return why


def _callbacks(tx: Connection, transfer_id: UUID) -> tuple[Callback, ...]:
    newest_first = list_deliveries(tx, rows_max=_CALLBACKS_MAX, resource=Resource.TRANSFERS, entity_id=transfer_id)
    return tuple(Callback(one, tuple(list_attempts(tx, one.delivery_id))) for one in reversed(newest_first))


def _bulk_events(bulk: BulkStory) -> list[Event]:
    received = Event(bulk.received, "bulk", "received by the edge")
    error = _error(bulk.error_code, bulk.error_description)
    steps = [
        Event(
            step.at,
            "bulk",
            f"{step.from_state} → {step.to_state}",
            reason=step.reason,
            error=error if step.to_state == bulk.state else None,
        )
        for step in bulk.steps
    ]
    return [received, *steps]


def _item_events(facts: TransferFacts, bulk: BulkStory | None) -> list[Event]:
    """An item is updated in place: its beginning is the bulk's, and the last step is all that it remembers."""
    if bulk is None or facts.item_state is None or facts.item_changed is None:
        return []
    split = [step.at for step in bulk.steps if step.to_state == "PENDING_PREPARE"]
    events = [Event(at, "item", "RECEIVED") for at in split]
    if facts.item_state != "RECEIVED":
        error = _error(facts.item_error_code, facts.item_error_description)
        events.append(Event(facts.item_changed, "item", facts.item_state, error=error))
    return events


def _step_event(step: TransferStep) -> Event:
    return Event(
        step.at,
        "transfer",
        f"{step.from_state} → {step.to_state}",
        reason=step.reason,
        position=None if step.position is None else format_amount(from_numeric(step.position)),
        error=_error(step.error_code, step.error_description),
    )


def _callback_events(callbacks: tuple[Callback, ...]) -> list[Event]:
    events: list[Event] = []
    for one in callbacks:
        delivery = one.delivery
        name = f"{delivery.callback} {delivery.kind} to {delivery.fsp}"
        events.append(Event(delivery.created_date, "callback", f"{name}: written, {delivery.state} now"))
        events += [
            Event(
                attempt.created_date,
                "callback",
                f"{name}: attempt {attempt.attempt}",
                error=attempt.error,
                url=attempt.url,
                status=attempt.status,
                duration_ms=attempt.duration_ms,
            )
            for attempt in one.attempts
        ]
    return events


def _message(found: FoundMessage) -> Event:
    message = found.message
    says = "/".join(str(message[name]) for name in ("type", "action", "status") if name in message)
    if "items" in message:
        says = f"{says} for {message['items']} items"
    what = f"dead letter: {says}" if found.is_dead_letter else says or "a record that cannot be decoded"
    return Event(
        found.at,
        "message",
        what,
        reason=found.reason,
        error=_error(message.get("error_code"), message.get("error_description")),
        place=f"{found.topic}/{found.partition}/{found.offset}",
        message=message,
    )


def _error(code: str | None, description: str | None) -> str | None:
    return None if code is None else f"{code} {description}"


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
