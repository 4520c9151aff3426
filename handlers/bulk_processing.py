"""bulk-processing: the news about items is gathered, and the bulk's next state is decided from its rows.

Consumes    topic-bulk-processing: BulkProcessing (#5, #6, #8…#11, #13…#16, #18, #22, #24)
Refuses     nothing: news that an item's machine does not allow is a repeat or came too late, and is dropped
Changes     the items; the bulks' states; at an end what each side was told, and nothing is due any more
Emits       ACCEPTED: the POST to the payee (#21); an end: the final callback of the payer, and of the payee if the bulk was
            ever ACCEPTED (#21, or the payer's PUT /error)

The bulks are locked in key order before anything is read, so whichever of many workers sets the last item decides the bulk,
once (BULK-120). The state, the results and the notifications are one transaction (X-34). Bodies are kept in the object store
before the transaction ends, under their own hash, so a retry writes the same bytes under the same name. The locks are held
meanwhile, so the store has a bounded time (`object_calls`): then the batch is rolled back and tried again in halves.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from db.bulks import (
    BulkRow,
    BulkStateChange,
    bulks_by_key,
    insert_bulk_steps,
    lock_bulks,
)
from db.expirations import end_expirations
from db.results import insert_results
from db.transfers import item_states, items_of, tally_items, transfer_states, update_items
from domain.bulk_processing import BulkStep, BulkTally, ItemNews, decide_bulk, decide_items
from domain.combinations import TOPIC_BULK_PROCESSING, require_all_known
from domain.fspiop_errors import FspiopError
from domain.identifiers import bulk_key_of
from domain.states import BulkState, ItemState, is_final
from handlers.bulk_outcome import BulkOutcome
from handlers.handler import Crash, Output
from handlers.object_calls import ObjectCalls
from object_store.interface import ObjectStore
from schemas.messages import BulkProcessing


class BulkProcessingHandler:
    """See the module's docstring."""

    name = "bulk-processing"
    topic = TOPIC_BULK_PROCESSING
    message = BulkProcessing

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._calls = ObjectCalls(store)

    def weight(self, message: BulkProcessing) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[BulkProcessing]) -> list[Output]:
        require_all_known(self.topic, messages)
        news = [_news(message) for message in messages]
        lock_bulks(tx, list({one.bulk_key for one in news}))
        moved = self._set_items(tx, news)
        if not moved:
            return []
        bulks = bulks_by_key(tx, sorted(moved))
        tallies = tally_items(tx, {key: bulk.item_count for key, bulk in bulks.items()})
        steps = [step for key in bulks if (step := decide_bulk(_tally(bulks[key], tallies[key]))) is not None]
        if not steps:
            return []
        insert_bulk_steps(tx, [BulkStateChange(step.bulk_key, step.from_state, step.to_state) for step in steps])
        return self._tell(tx, steps, bulks)

    def give_up(self, tx: Connection, message: BulkProcessing, reason: str) -> list[Output]:
        raise Crash(f"bulk-processing: news about transfer {message.transfer_key} cannot be worked on: {reason}")

    def _set_items(self, tx: Connection, news: Sequence[ItemNews]) -> set[int]:
        """Set the items and return the keys of the bulks that were moved."""
        keys = sorted({one.transfer_key for one in news})
        expiring = [one.transfer_key for one in news if one.action == "bulk-timeout-received"]
        steps = decide_items(news, item_states(tx, keys), transfer_states(tx, expiring))
        if steps:
            update_items(tx, [(step.transfer_key, step.to_state, step.error) for step in steps])
        return {bulk_key_of(step.transfer_key) for step in steps}

    def _tell(self, tx: Connection, steps: Sequence[BulkStep], bulks: Mapping[int, BulkRow]) -> list[Output]:
        """What the two sides hear of these steps, with the rows that remember it."""
        forwarded = [bulks[step.bulk_key] for step in steps if step.to_state is BulkState.ACCEPTED]
        ended = [(bulks[step.bulk_key], step.to_state) for step in steps if is_final(step.to_state)]
        told = {bulk.bulk_key: bulk.item_count for bulk in [*forwarded, *(bulk for bulk, _ in ended)]}
        if not told:
            return []
        items = items_of(tx, told)
        with self._calls.of_batch() as calls:
            outcome = BulkOutcome(calls, self._store, tx, items)
            outputs = outcome.forward(forwarded)
            if ended:
                results, final = outcome.final(ended)
                insert_results(tx, results)
                end_expirations(tx, [bulk.bulk_key for bulk, _ in ended])
                outputs += final
        return outputs


def _news(message: BulkProcessing) -> ItemNews:
    error = None
    if message.error_code is not None and message.error_description is not None:
        error = FspiopError(message.error_code, message.error_description)
    return ItemNews(bulk_key_of(message.transfer_key), message.transfer_key, message.action, message.status, error)


def _tally(bulk: BulkRow, tally: tuple[Mapping[ItemState, int], int]) -> BulkTally:
    items, expired_errors = tally
    return BulkTally(bulk.bulk_key, bulk.state, items, expired_errors, bulk.fulfil_outcome)
