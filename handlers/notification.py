"""notification: who is to be told what becomes a delivery row, and a deliverer makes the HTTP request.

Consumes topic-notification-event (combinations 2, 3, 20, 21 and ours). In this order a message may be refused:

    1. type, action and status are no combination of this topic       → dead letter (BULK-82)
    2. its callback does not fit its combination (a POST that is no forward, …) → the process stops
    3. `to` is no participant                                          → nothing is written: there is nobody to tell

Writes one row per callback: FORWARD (the POST to the payee) and FINAL (what it ended with) once per bulk and FSP, ANSWER
once per request. A message that is read again finds its row and changes nothing, so an FSP has one row to be told
one outcome with (D8, D9, D19). Headers are fixed in the row, the body lies in the object store under its own hash: every
attempt sends the same bytes. Rows of one FSP and bulk are written in the order of the messages, and sent in it.

Emits nothing. A known message that cannot be written down stops the process: what it says may be the outcome of money,
and a dead letter would be silence. When the process dies, the batch is read again.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.deliveries import NewDelivery, insert_deliveries, load_receivers
from db.reference_data import HUB_NAME
from db.traces import forward_traces
from domain.combinations import BULK_FORWARD, TOPIC_NOTIFICATION, Combination, UnknownCombination, require_known
from domain.delivery import Callback, ContradictoryNotification, DeliveryKind, Resource, delivery_kind
from domain.identifiers import id_text
from handlers.handler import BadMessage, Crash, Output
from handlers.tracing import continued, headers_of_outputs
from schemas.callbacks import callback_headers
from schemas.messages import Message, Notification

log = logging.getLogger(__name__)


class NotificationHandler:
    """Implements handlers.handler.Handler. `unknown_receivers` counts what was for nobody."""

    name = "notification"
    topic = TOPIC_NOTIFICATION
    message: type[Message] = Notification

    def __init__(self, hub_name: str = HUB_NAME) -> None:
        self._hub_name = hub_name
        self.unknown_receivers = 0

    def weight(self, message: Any) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[Any]) -> list[Output]:
        """Two statements, whatever the number of messages, and a third where there is a trace to carry on."""
        try:
            for message in messages:
                require_known(self.topic, message.type, message.action, message.status)
        except UnknownCombination as error:
            # With several messages the loop looks for the one to blame, and calls again with it alone.
            if len(messages) == 1:
                raise BadMessage(str(error)) from error
            raise
        at, known = load_receivers(tx, sorted({message.to for message in messages}))
        told = [message for message in messages if self._is_known(message, known)]
        if told:
            insert_deliveries(tx, self._traced(tx, told, [self._delivery(message, at) for message in told]))
        return []

    def give_up(self, tx: Connection, message: Any, reason: str) -> list[Output]:
        """Only what nobody understands may be a dead letter; a known outcome must be told."""
        try:
            require_known(self.topic, message.type, message.action, message.status)
        except UnknownCombination:
            return []
        raise Crash(f"{self._about(message)}: {message.to} cannot be told its outcome: {reason}")

    def _is_known(self, message: Any, known: frozenset[str]) -> bool:
        if message.to in known:
            return True
        self.unknown_receivers += 1
        log.warning(
            "%s: %r is no participant, nobody is told (%s, %s)",
            self._about(message),
            message.to,
            message.action,
            message.status,
            extra={"handler": self.name, **self._ids(message)},
        )
        return False

    def _delivery(self, message: Any, at: datetime) -> NewDelivery:
        kind = self._kind(message, Resource.BULK_TRANSFERS, BULK_FORWARD)
        callback = Callback(message.callback)
        return NewDelivery(
            resource=Resource.BULK_TRANSFERS,
            entity_id=UUID(bytes=message.bulk_transfer_id),
            fsp=message.to,
            kind=kind,
            request_id=None if message.request_id is None else UUID(bytes=message.request_id),
            callback=callback,
            content=message.content,
            headers=callback_headers(
                Resource.BULK_TRANSFERS, callback, self._hub_name, message.to, message.bulk_transfer_id, at
            ),
            not_after_ms=message.not_after_ms,
        )

    def _kind(self, message: Any, resource: Resource, forward: Combination) -> DeliveryKind:
        """The kind of the callback; `forward` is the combination of the forward to the payee."""
        try:
            return delivery_kind(
                is_forward=(message.action, message.status) == (forward.action, forward.status),
                callback=message.callback,
                answers_request=message.request_id is not None,
                resource=resource,
            )
        except ContradictoryNotification as error:
            raise Crash(f"{self._about(message)}, to {message.to}: {error}") from error

    def _about(self, message: Any) -> str:
        return f"bulk {id_text(message.bulk_transfer_id)}"

    def _ids(self, message: Any) -> dict[str, str]:
        return {"bulk_transfer_id": id_text(message.bulk_transfer_id)}

    def _traced(self, tx: Connection, messages: Sequence[Any], deliveries: Sequence[NewDelivery]) -> list[NewDelivery]:
        """The same, with the trace's context among the headers that the hub itself says (handlers/tracing.py)."""
        headers_of = headers_of_outputs()
        if headers_of is None:
            return list(deliveries)
        final = [one.entity_id for one in deliveries if one.kind == DeliveryKind.FINAL and one.headers is not None]
        first = forward_traces(tx, final) if final else {}
        traced = []
        for message, delivery in zip(messages, deliveries, strict=True):
            if delivery.headers is not None:
                trace = {name: value.decode() for name, value in headers_of(message)}
                if delivery.kind == DeliveryKind.FINAL:
                    # The payee may have answered in a trace of its own; the payer asked in the POST's.
                    trace = continued(first.get(delivery.entity_id), trace)
                delivery = replace(delivery, headers=delivery.headers | trace)
            traced.append(delivery)
        return traced
