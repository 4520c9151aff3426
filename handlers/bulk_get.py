"""bulk-get: a GET /bulkTransfers/{ID} is answered by a PUT or a PUT /error, by who asks and how far the bulk is.

Consumes    topic-bulk-get: BulkGet
Refuses     3100 to a sender that is inactive; 3210 to whoever is neither payer nor payee, and for an id that is not known
            (domain/bulk_get.py)
Changes     nothing
Emits       the answer (bulk-get success or error)

A bulk that is not in the database may lie in the object store still unread: its sender, and nobody else, is told RECEIVED,
until bulk-prepare has read past the time of its receipt in the bulk's partition. The object store has a bounded time for a
batch (`object_calls`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import Connection

from db.bulks import BulkRow, bulks_by_id
from db.participants import participants_by_name
from db.progress import read_times_ms
from db.results import BulkResult, results_of
from db.transfers import ItemRow, items_of
from domain.bulk_get import BulkToShow, BulkView, Role, View, decide_bulk_get
from domain.combinations import (
    BULK_GET_ANSWER,
    BULK_GET_ERROR,
    TOPIC_BULK_GET,
    TOPIC_BULK_PREPARE,
    require_all_known,
)
from domain.fspiop_errors import BULK_NOT_FOUND, FspiopError, source_inactive
from domain.identifiers import bulk_key_of
from domain.states import BULK_API_STATES, FORWARDED_ITEM_STATES
from handlers.handler import Output
from handlers.notices import notice
from handlers.object_calls import BatchCalls, ObjectCalls
from handlers.stored_answers import told_list
from handlers.unread import has_unread_post
from object_store.interface import ObjectStore
from schemas.fspiop.errors import error_body
from schemas.fspiop.results import ItemResult, result_body, state_body
from schemas.messages import BulkGet
from stream.interface import Stream

_BULK_PREPARE = "bulk-prepare"


class BulkGetHandler:
    """See the module's docstring. `stream` says in which partition a bulk's request would stand."""

    name = "bulk-get"
    topic = TOPIC_BULK_GET
    message = BulkGet

    def __init__(self, store: ObjectStore, stream: Stream) -> None:
        self._store = store
        self._calls = ObjectCalls(store)
        self._stream = stream

    def weight(self, message: BulkGet) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[BulkGet]) -> list[Output]:
        require_all_known(self.topic, messages)
        participants = participants_by_name(tx, {message.source for message in messages})
        # Whoever is no participant has no endpoint, so there is nobody to answer.
        inactive = [one for one in messages if one.source in participants and not participants[one.source].is_active]
        asked = [one for one in messages if one.source in participants and participants[one.source].is_active]
        bulks = bulks_by_id(tx, [message.bulk_transfer_id for message in asked])
        all_known = all(message.bulk_transfer_id in bulks for message in asked)
        read_ms = {} if all_known else read_times_ms(tx, _BULK_PREPARE, TOPIC_BULK_PREPARE)
        with self._calls.of_batch() as calls:
            views = self._views(asked, bulks, read_ms, calls)
        keys = {bulk.bulk_key: bulk.item_count for bulk in bulks.values()}
        results = results_of(tx, list(keys)) if any(view.view is View.RESULT for view in views) else {}
        items = items_of(tx, keys) if any(view.view is View.ITEMS for view in views) else ()
        with self._calls.of_batch() as calls:
            refused = [_refuse(message, source_inactive(message.source), calls) for message in inactive]
            told = self._told(asked, views, bulks, results, calls)
            return refused + [
                _answer(message, view, bulks.get(message.bulk_transfer_id), told, items, calls)
                for message, view in zip(asked, views, strict=True)
            ]

    def give_up(self, tx: Connection, message: BulkGet, reason: str) -> list[Output]:
        """Nothing waits for a GET but its sender, who can ask again."""
        return []

    def _views(
        self,
        asked: Sequence[BulkGet],
        bulks: Mapping[bytes, BulkRow],
        read_ms: Mapping[int, int],
        calls: BatchCalls,
    ) -> list[BulkView]:
        unknown = [message for message in asked if message.bulk_transfer_id not in bulks]
        unread = calls.in_order(lambda message: self._unread_request(message, read_ms), unknown)
        views = []
        for message in asked:
            bulk = bulks.get(message.bulk_transfer_id)
            shown = None
            if bulk is not None:
                shown = BulkToShow(bulk.payer_fsp, bulk.payee_fsp, bulk.state, bulk.was_accepted)
            is_unread = bulk is None and next(unread)
            views.append(decide_bulk_get(message.source, shown, unread_request_of_source=is_unread))
        return views

    def _unread_request(self, message: BulkGet, read_ms: Mapping[int, int]) -> bool:
        return has_unread_post(
            self._store,
            self._stream,
            TOPIC_BULK_PREPARE,
            message.bulk_transfer_id,
            message.source,
            read_ms,
            lambda body: b'"individualTransfers"' in body,
        )

    def _told(
        self,
        asked: Sequence[BulkGet],
        views: Sequence[BulkView],
        bulks: Mapping[bytes, BulkRow],
        results: Mapping[tuple[int, str], BulkResult],
        calls: BatchCalls,
    ) -> Iterator[str]:
        """What those were told that ask for a result, one after the other."""

        def told(shown: tuple[BulkRow, BulkView]) -> str:
            bulk, view = shown
            assert view.role is not None
            return told_list(self._store, results[bulk.bulk_key, view.role.value], bulk.state)

        shown = [
            (bulks[message.bulk_transfer_id], view)
            for message, view in zip(asked, views, strict=True)
            if view.view is View.RESULT
        ]
        return calls.in_order(told, shown)


def _answer(
    message: BulkGet,
    view: BulkView,
    bulk: BulkRow | None,
    told: Iterator[str],
    items: Sequence[ItemRow],
    calls: BatchCalls,
) -> Output:
    if view.view is View.NOT_FOUND:
        return _refuse(message, BULK_NOT_FOUND, calls)
    content = next(told) if view.view is View.RESULT else calls.put(_body(view, bulk, items))
    return notice(
        BULK_GET_ANSWER, message.bulk_transfer_id, message.source, "PUT", content, request_id=message.request_id
    )


def _refuse(message: BulkGet, error: FspiopError, calls: BatchCalls) -> Output:
    return notice(
        BULK_GET_ERROR,
        message.bulk_transfer_id,
        message.source,
        "PUT_ERROR",
        calls.put(error_body(error)),
        request_id=message.request_id,
    )


def _body(view: BulkView, bulk: BulkRow | None, items: Sequence[ItemRow]) -> bytes:
    """What a bulk that has not ended is shown as."""
    assert view.state is not None
    assert view.role is not None
    shown = BULK_API_STATES[view.state]
    if view.view is View.STATE or bulk is None:
        return state_body(shown)
    of_bulk = (item for item in items if bulk_key_of(item.transfer_key) == bulk.bulk_key)
    return result_body(shown, None, _so_far(of_bulk, view.role))


def _so_far(items: Iterable[ItemRow], role: Role) -> list[ItemResult]:
    """What is known of the items while the payee's answer is awaited; a payee sees only what was forwarded to it."""
    return [
        ItemResult(item.transfer_id, None, item.error, refused_by_payee=False, said=None)
        for item in items
        if role is Role.PAYER or item.state in FORWARDED_ITEM_STATES
    ]
