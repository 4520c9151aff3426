"""The pipeline in one thread: every handler on a real database and object store, with queues of what comes next.

Messages are put into frames and through the codec as the loop does it. With a transport the frames go through real topics
and are read back before they are queued; without one they are queued at once. A test can look at everything that was sent,
hold a topic back, deliver twice, or shuffle; nothing here decides anything.
"""

import random
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from sqlalchemy import Engine

from db.reference_data import HUB_NAME
from domain.bulk_fulfil import FulfilRules
from domain.bulk_prepare import BulkRules
from domain.combinations import (
    BULK_FULFIL,
    BULK_FULFIL_ERROR,
    BULK_GET,
    BULK_PREPARE,
    TOPIC_NOTIFICATION,
)
from domain.identifiers import id_bytes, id_text
from handlers.bulk_fulfil import BulkFulfilHandler
from handlers.bulk_get import BulkGetHandler
from handlers.bulk_prepare import BulkPrepareHandler
from handlers.bulk_processing import BulkProcessingHandler
from handlers.fulfil import FulfilHandler
from handlers.handler import Handler, Output
from handlers.journal import frames
from handlers.loop import LoopLimits
from handlers.notification import NotificationHandler
from handlers.position import PositionHandler
from handlers.prepare import PrepareHandler
from handlers.single_fulfil import SingleFulfilHandler
from handlers.single_notification import SingleNotificationHandler
from handlers.single_position import SinglePositionHandler
from handlers.single_prepare import SinglePrepareHandler
from handlers.timeout import TimeoutHandler
from handlers.transfer_get import TransferGetHandler
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.interface import ObjectStore
from schemas.codec import codec
from schemas.messages import BulkFulfil, BulkGet, BulkPrepare, Message, Tick
from stream.interface import NewRecord, Stream
from tests.fspiop_document import DOCUMENT, check_body

NOW_MS = Callable[[], int]
# What the edge keeps of every request's headers, at the least.
KEPT_HEADERS = {"content-type": "application/vnd.interoperability.bulkTransfers+json;version=1.1"}
# As many messages of a topic and key as the loop puts into one record.
_FRAME_MESSAGES_MAX = LoopLimits().frame_messages_max


class Transport(Protocol):
    """A way through real topics (tests/kafka_transport.py)."""

    def carry(self, records: Sequence[NewRecord]) -> list[NewRecord]:
        """The records as they were read back, in the order given."""


@dataclass
class Sent:
    """A message that some handler sent, in the order of sending."""

    topic: str
    key: bytes
    message: Any


@dataclass
class Pipeline:
    """`batch_items` messages at most are given to a handler at once; `shuffle` delivers the queue in random order."""

    engine: Engine
    store: ObjectStore
    stream: Stream
    bulk_rules: BulkRules = field(default_factory=BulkRules)
    fulfil_rules: FulfilRules = field(default_factory=FulfilRules)
    batch_items: int = 1_000
    seed: int | None = None
    copies: int = 1
    transport: Transport | None = None
    sent: list[Sent] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        handlers: Sequence[Handler] = (
            BulkPrepareHandler(self.store, self.bulk_rules, HUB_NAME),
            PrepareHandler(),
            PositionHandler(),
            BulkProcessingHandler(self.store),
            BulkFulfilHandler(self.store, self.fulfil_rules),
            FulfilHandler(),
            BulkGetHandler(self.store, self.stream),
            NotificationHandler(HUB_NAME),
            SinglePrepareHandler(self.bulk_rules.expiration_horizon_ms, HUB_NAME),
            SinglePositionHandler(),
            SingleFulfilHandler(),
            SingleNotificationHandler(self.store, HUB_NAME),
            TransferGetHandler(self.store, self.stream),
        )
        self.handlers: Mapping[str, Handler] = {handler.topic: handler for handler in handlers}
        self.timeout = TimeoutHandler(look_again_ms=0)
        self.queues: dict[str, deque[Any]] = {topic: deque() for topic in self.handlers}
        self._random = random.Random(self.seed)

    # What FSPs send; each returns the request id that the edge would have minted.

    def post(self, body: Mapping[str, Any], *, source: str, destination: str | None = None, **extra: Any) -> bytes:
        items = len(body["individualTransfers"])
        return self._receive(BulkPrepare, BULK_PREPARE, body["bulkTransferId"], body, source, destination, items, extra)

    def put(self, bulk_transfer_id: str, body: Mapping[str, Any], *, source: str, **extra: Any) -> bytes:
        return self._receive(BulkFulfil, BULK_FULFIL, bulk_transfer_id, body, source, None, 1, extra)

    def put_error(self, bulk_transfer_id: str, body: Mapping[str, Any], *, source: str, **extra: Any) -> bytes:
        return self._receive(BulkFulfil, BULK_FULFIL_ERROR, bulk_transfer_id, body, source, None, 1, extra)

    def get(self, bulk_transfer_id: str, *, source: str) -> bytes:
        request_id = uuid.uuid4().bytes
        message = BulkGet(
            BULK_GET.type, BULK_GET.action, BULK_GET.status, id_bytes(bulk_transfer_id), request_id, source, self.now()
        )
        self.receive(BULK_GET.topic, message.bulk_transfer_id, message)
        return request_id

    def _receive(
        self,
        message_class: Any,
        combination: Any,
        bulk_transfer_id: str,
        body: Mapping[str, Any],
        source: str,
        destination: str | None,
        weight: int,
        extra: Mapping[str, Any],
    ) -> bytes:
        request_id, key = uuid.uuid4().bytes, id_bytes(bulk_transfer_id)
        received_at_ms = extra.get("received_at_ms", self.now())
        kept = KeptRequest(source, destination, received_at_ms, KEPT_HEADERS, extra.get("raw") or orjson.dumps(body))
        self.store.put(request_key(key, request_id), pack_request(kept))
        message = message_class(
            combination.type,
            combination.action,
            combination.status,
            key,
            request_id,
            source,
            received_at_ms,
            weight,
        )
        self.receive(combination.topic, key, message)
        return request_id

    def receive(self, topic: str, key: bytes, message: Message) -> None:
        """Queue what the edge would have published."""
        self.queues[topic] += [carried for _, carried in self._carried([Output(topic, key, message)])]

    def now(self) -> int:
        from db.clock import now_ms

        with self.engine.connect() as tx:
            return now_ms(tx)

    # What the switch does.

    def run(self, *topics: str) -> None:
        """Handle what waits, and what that leads to, until nothing waits on these topics (all, if none are named)."""
        names = [name for name in (topics or self.queues) if name not in self.held]
        while any(self.queues[name] for name in names):
            for name in names:
                while self.queues[name]:
                    self.step(name)

    def step(self, topic: str, items: int | None = None) -> list[Output]:
        """One batch of one topic."""
        queue = self.queues[topic]
        batch = [queue.popleft() for _ in range(min(items or self.batch_items, len(queue)))]
        return self.handle(topic, batch)

    def handle(self, topic: str, batch: Sequence[Message]) -> list[Output]:
        """Give these messages to the topic's handler in one transaction, and queue what it sends."""
        with self.engine.begin() as tx:
            outputs = self.handlers[topic].handle(tx, batch)
        self.send(outputs)
        return outputs

    def tick(self) -> list[Output]:
        """One look of the timeout handler at what is due."""
        with self.engine.begin() as tx:
            outputs = self.timeout.handle(tx, [Tick(self.now())])
        self.send(outputs)
        return outputs

    def send(self, outputs: Sequence[Output]) -> None:
        for record, message in self._carried(outputs):
            self.sent.append(Sent(record.topic, record.key, message))
            if record.topic == TOPIC_NOTIFICATION:
                self._require_valid_callback(message)
            self.queues[record.topic].extend([message] * self.copies)
            if self.seed is not None:
                self._random.shuffle(self.queues[record.topic])

    def _carried(self, outputs: Sequence[Output]) -> list[tuple[NewRecord, Any]]:
        """Every message as its reader gets it, with the record that it came in."""
        records = frames(outputs, _FRAME_MESSAGES_MAX)
        if self.transport is not None:
            records = self.transport.carry(records)
        classes = {output.topic: type(output.message) for output in outputs}
        return [
            (record, message) for record in records for message in codec(classes[record.topic]).decode(record.value)
        ]

    def _require_valid_callback(self, notification: Any) -> None:
        """Every body that any flow tells an FSP is what the OpenAPI document of FSPIOP 1.1 says; nothing is null."""
        bulk_transfer_id = id_text(notification.bulk_transfer_id)
        method, path = {
            "POST": ("POST", "/bulkTransfers"),
            "PUT": ("PUT", f"/bulkTransfers/{bulk_transfer_id}"),
            "PUT_ERROR": ("PUT", f"/bulkTransfers/{bulk_transfer_id}/error"),
        }[notification.callback]
        if DOCUMENT.exists():
            assert check_body(method, path, self.store.get(notification.content)) == []

    def notifications(self, to: str) -> list[Any]:
        """What was to be told to this FSP, in order."""
        return [sent.message for sent in self.sent if sent.topic == TOPIC_NOTIFICATION and sent.message.to == to]

    def body(self, notification: Any) -> Any:
        return orjson.loads(self.store.get(notification.content))
