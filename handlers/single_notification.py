"""single-notification: who is to be told what of a single transfer becomes a delivery row, on a lane of its own.

Consumes topic-single-notification-event; refuses, writes and stops as notification does (handlers/notification.py), with
two differences. A callback may be another FSP's request, passed on as it was sent: then its row has no headers, and the
deliverer takes them from the request, signature included (reference §11.22). And a transfer has one more callback: PATCH,
which tells a payee that answered RESERVED what became of it. What the hub says itself is written here, and not by the
handlers that decide it, so that no account stays locked while the object store is written; nor does a batch wait for a slow
store for longer than its time (`object_calls`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.deliveries import NewDelivery
from db.reference_data import HUB_NAME
from domain.combinations import SINGLE_FORWARD, TOPIC_SINGLE_NOTIFICATION
from domain.delivery import Callback, Resource
from domain.fspiop_errors import FspiopError
from domain.identifiers import id_text
from handlers.handler import Output
from handlers.notification import NotificationHandler
from handlers.object_calls import BatchCalls, ObjectCalls
from object_store.envelope import request_key
from object_store.interface import ObjectStore
from schemas.callbacks import callback_headers
from schemas.fspiop.errors import error_body
from schemas.fspiop.results import transfer_body
from schemas.messages import Message, SingleNotification


class SingleNotificationHandler(NotificationHandler):
    """Implements handlers.handler.Handler."""

    name = "single-notification"
    topic = TOPIC_SINGLE_NOTIFICATION
    message: type[Message] = SingleNotification
    # Those of the batch at hand; a handler works on one at a time.
    _batch_calls: BatchCalls

    def __init__(self, store: ObjectStore, hub_name: str = HUB_NAME) -> None:
        super().__init__(hub_name)
        self._calls = ObjectCalls(store)

    def handle(self, tx: Connection, messages: Sequence[Any]) -> list[Output]:
        with self._calls.of_batch() as self._batch_calls:
            return super().handle(tx, messages)

    def _delivery(self, message: Any, at: datetime) -> NewDelivery:
        kind = self._kind(message, Resource.TRANSFERS, SINGLE_FORWARD)
        callback = Callback(message.callback)
        said_by_the_hub = callback_headers(
            Resource.TRANSFERS, callback, self._hub_name, message.to, message.transfer_id, at
        )
        return NewDelivery(
            resource=Resource.TRANSFERS,
            entity_id=UUID(bytes=message.transfer_id),
            fsp=message.to,
            kind=kind,
            request_id=None if message.request_id is None else UUID(bytes=message.request_id),
            callback=callback,
            content=self._content(message),
            headers=said_by_the_hub if message.sent_request_id is None else None,
            not_after_ms=message.not_after_ms,
        )

    def _content(self, message: SingleNotification) -> str:
        """The key of what is sent: the other FSP's request, or the hub's own words."""
        if message.sent_request_id is not None:
            return request_key(message.transfer_id, message.sent_request_id)
        error = None
        if message.error_code is not None and message.error_description is not None:
            error = FspiopError(message.error_code, message.error_description)
        if message.callback == Callback.PUT_ERROR:
            assert error is not None, "a PUT /error by the hub says what is wrong"
            return self._batch_calls.put(error_body(error))
        assert message.transfer_state is not None, "a PUT and a PATCH by the hub say a state"
        body = transfer_body(message.transfer_state, message.fulfilment, message.completed_timestamp, error)
        return self._batch_calls.put(body)

    def _about(self, message: Any) -> str:
        return f"transfer {id_text(message.transfer_id)}"

    def _ids(self, message: Any) -> dict[str, str]:
        return {"transfer_id": id_text(message.transfer_id)}
