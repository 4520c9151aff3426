"""One sentence: what a bulk or a transfer waits for, or how it ended and why. Made from rows, never from messages."""

from collections.abc import Sequence

from db.stories import TransferFacts, TransferStep
from domain.combinations import Combination
from domain.fspiop_errors import FspiopError
from domain.single_transfers import has_ended, position_request
from domain.states import BulkState, ItemState, TransferState, is_final
from domain.timeout import due_message
from operations.bulk_story import BulkStory, Callback
from operations.printing import clock
from schemas.topics import CATALOGUE

_WAITING_FOR_TIME = (TransferState.RECEIVED_PREPARE, TransferState.RESERVED)


def bulk_waits_for(bulk: BulkStory) -> str:
    """Of a bulk as a whole."""
    counts = bulk.items_by_state()
    items = ", ".join(f"{count} {state}" for state, count in counts.items())
    match bulk.state:
        case BulkState.PENDING_PREPARE:
            waits = (
                f"It waits for {counts.get(ItemState.RECEIVED, 0)} of its items to be reserved or refused ({items})."
            )
        case BulkState.ACCEPTED:
            waits = f"It waits for the answer of {bulk.payee_fsp}, until {clock(bulk.expiration)}. {_forward(bulk)}"
        case BulkState.PROCESSING | BulkState.PENDING_FULFIL:
            waits = f"It waits for {counts.get(ItemState.ACCEPTED, 0)} of its items to be committed or given back ({items})."
        case BulkState.EXPIRING:
            still_open = counts.get(ItemState.RECEIVED, 0) + counts.get(ItemState.ACCEPTED, 0)
            waits = f"Its time is over; it waits for {still_open} of its items to be ended ({items})."
        case BulkState.RECEIVED | BulkState.PENDING_INVALID:
            waits = "It stands in a state that is left in the transaction that comes to it: run `bulk-switch verify`."
        case _:
            waits = f"It ended as {bulk.state} at {clock(bulk.steps[-1].at)}{_because(bulk)}. {_told(bulk.callbacks)}"
    return waits.strip()


def item_waits_for(facts: TransferFacts, steps: Sequence[TransferStep], bulk: BulkStory) -> str:
    """Of one item of a bulk."""
    state = ItemState(facts.item_state or ItemState.RECEIVED)
    if state not in (ItemState.RECEIVED, ItemState.ACCEPTED):
        ended = f"It ended as {state} at {clock(facts.item_changed)}"
        if state is ItemState.COMPLETED:
            ended += ": the money was committed"
        elif facts.item_error_code is not None:
            ended += f": {facts.item_error_code} {facts.item_error_description}"
        return f"{ended}. {_of_bulk(bulk)}"
    if not steps:
        if bulk.state is BulkState.EXPIRING:
            return "Its time is over before it became a transfer; bulk-processing has not ended it yet."
        return "It waits for prepare, which has not worked on its message on topic-transfer-prepare yet."
    last = steps[-1]
    transfer_state = TransferState(last.to_state)
    if transfer_state is TransferState.RECEIVED_PREPARE:
        return "It waits for position, which has not worked on its message on topic-transfer-position yet."
    if transfer_state is TransferState.RESERVED:
        return _reserved(state, bulk)
    return _due(due_message(facts.transfer_key, transfer_state, last.reason, _error_of(last)).combination)


def single_waits_for(facts: TransferFacts, steps: Sequence[TransferStep], callbacks: tuple[Callback, ...]) -> str:
    """Of a single transfer."""
    if not steps:
        return "It has no history: run `bulk-switch verify`."
    last = steps[-1]
    state = TransferState(last.to_state)
    if state is TransferState.RESERVED:
        return (
            f"Its money is reserved; it waits for the answer of {facts.payee_fsp}, until {clock(facts.expiration)}. "
            f"{_told(callbacks)}"
        ).strip()
    if has_ended(state):
        error = _error_of(last)
        because = "" if error is None else f": {error.code} {error.description}"
        return f"It ended as {state} at {clock(last.at)}{because}. {_told(callbacks)}".strip()
    return _due(position_request(state, last.reason))


def _reserved(state: ItemState, bulk: BulkStory) -> str:
    if state is ItemState.RECEIVED:
        others = bulk.items_by_state().get(ItemState.RECEIVED, 0)
        return (
            f"Its money is reserved; bulk-processing has not heard of it yet, or counts: {others} items of the bulk are "
            f"RECEIVED."
        )
    match bulk.state:
        case BulkState.PENDING_PREPARE:
            others = bulk.items_by_state().get(ItemState.RECEIVED, 0)
            return f"Its money is reserved; it waits for {others} other items of the bulk to be reserved or refused."
        case BulkState.ACCEPTED:
            return f"Its money is reserved. {bulk_waits_for(bulk).replace('It waits', 'The bulk waits', 1)}"
        case BulkState.EXPIRING:
            return "Its money is reserved and its time is over; the timeout handler gives it back at its next look."
        case _:
            return "Its money is reserved; fulfil has not worked on the payee's answer on topic-transfer-fulfil yet."


def _due(combination: Combination) -> str:
    reader = CATALOGUE[combination.topic].consumer
    says = f"{combination.type}/{combination.action}/{combination.status}"
    return f"It waits for {reader}, which has not worked on its message {says} on {combination.topic} yet."


def _forward(bulk: BulkStory) -> str:
    posts = [one for one in bulk.callbacks if one.delivery.kind == "FORWARD"]
    if not posts:
        return "The POST to the payee was not written down yet."
    return _told(tuple(posts))


def _of_bulk(bulk: BulkStory) -> str:
    if is_final(bulk.state):
        return f"Its bulk ended as {bulk.state}. {_told(bulk.callbacks)}".strip()
    return f"Its bulk is {bulk.state}: {bulk_waits_for(bulk)}"


def _because(bulk: BulkStory) -> str:
    if bulk.error_code is not None:
        return f": {bulk.error_code} {bulk.error_description}"
    reasons = [
        f"{one.items} items {one.state} ({one.error_code} {one.error_description})" for one in bulk.reasons()[:3]
    ]
    return f": {'; '.join(reasons)}" if reasons else ""


def _told(callbacks: tuple[Callback, ...]) -> str:
    """What became of the callbacks that matter: the last of each kind and receiver."""
    sentences = []
    for one in {
        (one.delivery.fsp, one.delivery.kind): one for one in callbacks if one.delivery.kind != "ANSWER"
    }.values():
        delivery = one.delivery
        if delivery.state == "DELIVERED":
            sentences.append(f"{delivery.fsp} got its {delivery.callback} at {clock(delivery.finished_date)}.")
            continue
        last = delivery.last_error or (f"the answer {delivery.last_status}" if delivery.last_status else None)
        tried = f"after {delivery.attempts} attempts" + (f", the last with {last}" if last else "")
        if delivery.state == "DEAD":
            sentences.append(f"The {delivery.callback} to {delivery.fsp} was given up {tried}.")
        else:
            when = clock(delivery.next_attempt_date)
            sentences.append(f"The {delivery.callback} to {delivery.fsp} waits {tried}; next at {when}.")
    return " ".join(sentences)


def _error_of(step: TransferStep) -> FspiopError | None:
    if step.error_code is None or step.error_description is None:
        return None
    return FspiopError(step.error_code, step.error_description)
