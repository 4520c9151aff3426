"""A checked request on its way in: first into the object store, then onto its topic, and only then is it answered.

    1. object store: the envelope and the raw body under its id and its request id (not for a GET, whose record says it all)
    2. stream: one record, keyed by its id, acknowledged

Both steps together have `publish_wait_ms`; when they fail or take longer the sender gets 503 with 2003. A call that has
begun is not called back: the object may still be kept and the record still arrive. That is safe, as is dying in between:
the sender sends it again either way, under a new request id, and the handlers find the resend by its content. An object
that no record names is removed by retention.

A part that keeps failing is probed by one request at a time, and the others are refused before their bodies are read
(`circuit`). PUTs have threads of their own to the store, so that answers do not wait behind new work.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bulk_api_adapter.bounded_threads import BoundedThreads
from bulk_api_adapter.fspiop.circuit import Circuit
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.reception import Errand, Received
from bulk_api_adapter.publishing import Publisher
from domain.combinations import TOPIC_BULK_FULFIL, TOPIC_BULK_GET, TOPIC_BULK_PREPARE, Combination
from domain.fspiop_errors import ErrorCode
from domain.identifiers import id_text
from object_store.content import content_key
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.interface import ObjectStore, ObjectStoreError, ObjectStoreUnavailable
from schemas.codec import codec
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders
from schemas.messages import BulkFulfil, BulkGet, BulkPrepare, SingleFulfil, SinglePrepare, TransferGet
from stream.interface import NewRecord, Stream, StreamError, StreamUnavailable

logger = logging.getLogger(__name__)

_BULK_TOPICS = frozenset({TOPIC_BULK_PREPARE, TOPIC_BULK_FULFIL, TOPIC_BULK_GET})

EdgeMessage = BulkPrepare | BulkFulfil | BulkGet | SinglePrepare | SingleFulfil | TransferGet


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request under the id that it is about, a bulkTransferId or a transferId, and the id that is its own."""

    entity_id: bytes
    request_id: bytes
    headers: RequestHeaders
    received_at_ms: int
    raw: bytes

    def said(self, combination: Combination) -> dict[str, Any]:
        """What the edge's messages have in common, but for the name of `entity_id`."""
        return {
            "type": combination.type,
            "action": combination.action,
            "status": combination.status,
            "request_id": self.request_id,
            "source": self.headers.source,
            "received_at_ms": self.received_at_ms,
        }


def request_of(received: Received[Any], entity_id: bytes) -> Request:
    request_id = mint_request_id(received.received_at_ms)
    return Request(entity_id, request_id, received.headers, received.received_at_ms, received.raw)


def mint_request_id(now_ms: int) -> bytes:
    """16 bytes like a UUIDv7: milliseconds first, so that a bulk's requests lie in the store in their order."""
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return now_ms.to_bytes(6, "big") + bytes(random)


class Intake:
    """Keeps and publishes requests; made once per app."""

    def __init__(self, stream: Stream, object_store: ObjectStore, limits: EdgeLimits) -> None:
        self._stream = stream
        self._object_store = object_store
        self._limits = limits
        self._store_threads = {
            Errand.NEW_WORK: BoundedThreads(limits.store_writes_max, "object-store"),
            Errand.ANSWER: BoundedThreads(limits.answer_writes_max, "object-store-answers"),
        }
        self._store_circuit = Circuit("object store", ObjectStoreUnavailable, limits)
        self._stream_circuit = Circuit("stream", StreamUnavailable, limits)
        self._health_threads = BoundedThreads(1, "health")
        self._publisher = Publisher(
            stream,
            queue_records_max=limits.publish_queue_records_max,
            batch_records_max=limits.publish_batch_records_max,
            acks_wait_ms=limits.publish_wait_ms,
        )

    def require_way(self, errand: Errand) -> None:
        """Raises Refusal when a request with this errand could not get in now, whatever it says."""
        self._stream_circuit.require_way()
        if errand in self._store_threads:
            self._store_circuit.require_way()

    async def keep_and_publish(self, errand: Errand, topic: str, request: Request, message: EdgeMessage) -> None:
        """Return when the request lies in the store and its message on the topic; raises Refusal."""
        kept = KeptRequest(
            source=request.headers.source,
            destination=request.headers.destination,
            received_at_ms=request.received_at_ms,
            headers=request.headers.kept,
            body=request.raw,
        )
        key = request_key(request.entity_id, request.request_id)
        packed = pack_request(kept)

        async def put() -> None:
            with self._store_circuit.attempt():
                await self._store_threads[errand].run(lambda: self._object_store.put(key, packed))

        await self._within_bounds(put, _record(topic, request, message))

    async def publish(self, topic: str, request: Request, message: EdgeMessage) -> None:
        """Return when the message is on the topic, for a request of which nothing need be kept; raises Refusal."""
        await self._within_bounds(None, _record(topic, request, message))

    async def health(self) -> dict[str, bool]:
        """Whether the stream and the object store answer now, within `health_wait_ms`."""
        return {
            "broker": await self._answers(lambda: self._stream.end_offsets(TOPIC_BULK_PREPARE)),
            "objectStore": await self._answers(lambda: self._object_store.exists(content_key(b""))),
        }

    def close(self) -> None:
        """Publish what waits and end the threads."""
        self._publisher.close()
        for threads in self._store_threads.values():
            threads.close()
        self._health_threads.close()

    async def _within_bounds(self, put: Callable[[], Awaitable[None]] | None, record: NewRecord) -> None:
        waited_for = self._stream_circuit if put is None else self._store_circuit
        try:
            async with asyncio.timeout(self._limits.publish_wait_ms / 1000):
                if put is not None:
                    await put()
                waited_for = self._stream_circuit
                with self._stream_circuit.attempt():
                    await self._publisher.publish(record)
        except (ObjectStoreError, StreamError) as error:
            logger.warning("a request for %s was answered with 503: %s", record.topic, error, extra=_ids(record))
            raise _unavailable("the request could not be kept, send it again", waited_for) from error
        except TimeoutError as error:
            waited = self._limits.publish_wait_ms
            logger.warning(
                "a request for %s was answered with 503: not kept within %d ms",
                record.topic,
                waited,
                extra=_ids(record),
            )
            raise _unavailable("the request was not kept in time, send it again", waited_for) from error

    async def _answers(self, call: Callable[[], object]) -> bool:
        try:
            async with asyncio.timeout(self._limits.health_wait_ms / 1000):
                await self._health_threads.run(call)
        except (ObjectStoreError, StreamError, TimeoutError) as error:
            logger.warning("health: %r", error)
            return False
        return True


def _record(topic: str, request: Request, message: EdgeMessage) -> NewRecord:
    return NewRecord(topic, request.entity_id, codec(type(message)).encode([message]), request.headers.trace)


def _ids(record: NewRecord) -> dict[str, str]:
    """What a log line about a request says it is about."""
    entity = "bulk_transfer_id" if record.topic in _BULK_TOPICS else "transfer_id"
    return {"topic": record.topic, entity: id_text(record.key)}


def _unavailable(text: str, part: Circuit) -> Refusal:
    return Refusal(ErrorCode.SERVICE_UNAVAILABLE, text, retry_after_s=part.retry_after_s(), reason=part.name)
