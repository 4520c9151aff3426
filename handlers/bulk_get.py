"""bulk-get: a GET /bulkTransfers/{ID} is answered by a PUT or a PUT /error, by who asks and how far the bulk is.

Consumes    topic-bulk-get: BulkGet
Refuses     3100 to a sender that is inactive; 3210 to whoever is neither payer nor payee, and for an id that is not known
            (domain/bulk_get.py)
Changes     nothing
Emits       the answer (bulk-get success or error)

A bulk that is not in the database may lie in the object store still unread: its sender, and nobody else, is told RECEIVED,
until bulk-prepare has read past the time of its receipt in the bulk's partition.
"""

from collections.abc import Iterable, Mapping, Sequence

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
from handlers.notices import notice, put_content_or_slow_down
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
        views = [self._view(message, bulks.get(message.bulk_transfer_id), read_ms) for message in asked]
        keys = {bulk.bulk_key: bulk.item_count for bulk in bulks.values()}
        results = results_of(tx, list(keys)) if any(view.view is View.RESULT for view in views) else {}
        items = items_of(tx, keys) if any(view.view is View.ITEMS for view in views) else ()
        refused = [self._refuse(message, source_inactive(message.source)) for message in inactive]
        return refused + [
            self._answer(message, view, bulks.get(message.bulk_transfer_id), results, items)
            for message, view in zip(asked, views, strict=True)
        ]

    def give_up(self, tx: Connection, message: BulkGet, reason: str) -> list[Output]:
        """Nothing waits for a GET but its sender, who can ask again."""
        return []

    def _view(self, message: BulkGet, bulk: BulkRow | None, read_ms: Mapping[int, int]) -> BulkView:
        shown = None
        if bulk is not None:
            shown = BulkToShow(bulk.payer_fsp, bulk.payee_fsp, bulk.state, bulk.was_accepted)
        unread = bulk is None and self._unread_request(message, read_ms)
        return decide_bulk_get(message.source, shown, unread_request_of_source=unread)

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

    def _answer(
        self,
        message: BulkGet,
        view: BulkView,
        bulk: BulkRow | None,
        results: dict[tuple[int, str], BulkResult],
        items: Sequence[ItemRow],
    ) -> Output:
        if view.view is View.NOT_FOUND:
            return self._refuse(message, BULK_NOT_FOUND)
        content = self._content(view, bulk, results, items)
        return notice(
            BULK_GET_ANSWER, message.bulk_transfer_id, message.source, "PUT", content, request_id=message.request_id
        )

    def _refuse(self, message: BulkGet, error: FspiopError) -> Output:
        content = put_content_or_slow_down(self._store, error_body(error))
        return notice(
            BULK_GET_ERROR,
            message.bulk_transfer_id,
            message.source,
            "PUT_ERROR",
            content,
            request_id=message.request_id,
        )

    def _content(
        self,
        view: BulkView,
        bulk: BulkRow | None,
        results: dict[tuple[int, str], BulkResult],
        items: Sequence[ItemRow],
    ) -> str:
        assert view.state is not None
        assert view.role is not None
        shown = BULK_API_STATES[view.state]
        if view.view is View.STATE or bulk is None:
            return put_content_or_slow_down(self._store, state_body(shown))
        if view.view is View.RESULT:
            return told_list(self._store, results[bulk.bulk_key, view.role.value], bulk.state)
        of_bulk = (item for item in items if bulk_key_of(item.transfer_key) == bulk.bulk_key)
        return put_content_or_slow_down(self._store, result_body(shown, None, _so_far(of_bulk, view.role)))


def _so_far(items: Iterable[ItemRow], role: Role) -> list[ItemResult]:
    """What is known of the items while the payee's answer is awaited; a payee sees only what was forwarded to it."""
    return [
        ItemResult(item.transfer_id, None, item.error, refused_by_payee=False, said=None)
        for item in items
        if role is Role.PAYER or item.state in FORWARDED_ITEM_STATES
    ]
