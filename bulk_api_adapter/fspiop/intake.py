"""A checked request on its way in: first into the object store, then onto its topic, and only then is it answered.

    1. object store: the envelope and the raw body under its id and its request id (not for a GET, whose record says it all)
    2. stream: one record, keyed by its id, acknowledged

Both steps together have `publish_wait_ms`; when they fail or take longer the sender gets 503 with 2003 and nothing more
is written. Dying after step 1 leaves an object that no record names, dying after step 2 a request that was not answered:
the sender sends it again either way, under a new request id, and the handlers find the resend by its content.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bulk_api_adapter.bounded_threads import BoundedThreads
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.reception import Received
from bulk_api_adapter.publishing import Publisher
from domain.combinations import TOPIC_BULK_PREPARE, Combination
from domain.fspiop_errors import ErrorCode
from object_store.content import content_key
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.interface import ObjectStore, ObjectStoreError
from schemas.codec import codec
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders
from schemas.messages import BulkFulfil, BulkGet, BulkPrepare, SingleFulfil, SinglePrepare, TransferGet
from stream.interface import NewRecord, Stream, StreamError

logger = logging.getLogger(__name__)

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
        self._store_threads = BoundedThreads(limits.store_writes_max, "object-store")
        self._health_threads = BoundedThreads(1, "health")
        self._publisher = Publisher(
            stream,
            queue_records_max=limits.publish_queue_records_max,
            batch_records_max=limits.publish_batch_records_max,
            acks_wait_ms=limits.publish_wait_ms,
        )

    async def keep_and_publish(self, topic: str, request: Request, message: EdgeMessage) -> None:
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
        await self._within_bounds(lambda: self._object_store.put(key, packed), _record(topic, request, message))

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
        self._store_threads.close()
        self._health_threads.close()

    async def _within_bounds(self, put: Callable[[], None] | None, record: NewRecord) -> None:
        try:
            async with asyncio.timeout(self._limits.publish_wait_ms / 1000):
                if put is not None:
                    await self._store_threads.run(put)
                await self._publisher.publish(record)
        except (ObjectStoreError, StreamError) as error:
            logger.warning("a request for %s was answered with 503: %s", record.topic, error)
            raise Refusal(ErrorCode.SERVICE_UNAVAILABLE, "the request could not be kept, send it again") from error
        except TimeoutError as error:
            waited = self._limits.publish_wait_ms
            logger.warning("a request for %s was answered with 503: not kept within %d ms", record.topic, waited)
            raise Refusal(ErrorCode.SERVICE_UNAVAILABLE, "the request was not kept in time, send it again") from error

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
