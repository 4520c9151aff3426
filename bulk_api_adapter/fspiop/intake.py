"""A checked request on its way in: first into the object store, then onto its topic, and only then is it answered.

    1. mint the request id
    2. object store: the envelope and the raw body under bulk id and request id (not for a GET, whose record says it all)
    3. stream: one record, keyed by the bulk id, acknowledged

Both steps together have `publish_wait_ms`; when they fail or take longer the sender gets 503 with 2003 and nothing more
is written. Dying after step 2 leaves an object that no record names, dying after step 3 a request that was not answered:
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
from bulk_api_adapter.publishing import Publisher
from domain.combinations import BULK_FULFIL, BULK_FULFIL_ERROR, BULK_GET, BULK_PREPARE, Combination
from domain.fspiop_errors import ErrorCode
from object_store.content import content_key
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.interface import ObjectStore, ObjectStoreError
from schemas.codec import codec
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders
from schemas.messages import BulkFulfil, BulkGet, BulkPrepare
from stream.interface import NewRecord, Stream, StreamError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose headers and body are well formed. `weight` is the count of items it makes work for."""

    bulk_transfer_id: bytes
    headers: RequestHeaders
    received_at_ms: int
    weight: int
    body: bytes


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

    async def prepare(self, request: Request) -> None:
        """POST /bulkTransfers → bulk-prepare (BULK-14)."""
        request_id = mint_request_id(request.received_at_ms)
        message = BulkPrepare(**_fields(BULK_PREPARE, request, request_id), weight=request.weight)
        record = _record(BULK_PREPARE, request, codec(BulkPrepare).encode([message]))
        await self._keep_and_publish(request, request_id, record)

    async def fulfil(self, request: Request) -> None:
        """PUT /bulkTransfers/{ID} → bulk-fulfil (BULK-27)."""
        await self._fulfil(BULK_FULFIL, request)

    async def fulfil_error(self, request: Request) -> None:
        """PUT /bulkTransfers/{ID}/error → bulk-fulfil."""
        await self._fulfil(BULK_FULFIL_ERROR, request)

    async def get(self, request: Request) -> None:
        """GET /bulkTransfers/{ID} → bulk-get."""
        message = BulkGet(**_fields(BULK_GET, request, mint_request_id(request.received_at_ms)))
        await self._within_bounds(None, _record(BULK_GET, request, codec(BulkGet).encode([message])))

    async def health(self) -> dict[str, bool]:
        """Whether the stream and the object store answer now, within `health_wait_ms`."""
        return {
            "broker": await self._answers(lambda: self._stream.end_offsets(BULK_PREPARE.topic)),
            "objectStore": await self._answers(lambda: self._object_store.exists(content_key(b""))),
        }

    def close(self) -> None:
        """Publish what waits and end the threads."""
        self._publisher.close()
        self._store_threads.close()
        self._health_threads.close()

    async def _fulfil(self, combination: Combination, request: Request) -> None:
        request_id = mint_request_id(request.received_at_ms)
        message = BulkFulfil(**_fields(combination, request, request_id), weight=request.weight)
        record = _record(combination, request, codec(BulkFulfil).encode([message]))
        await self._keep_and_publish(request, request_id, record)

    async def _keep_and_publish(self, request: Request, request_id: bytes, record: NewRecord) -> None:
        kept = KeptRequest(
            source=request.headers.source,
            destination=request.headers.destination,
            received_at_ms=request.received_at_ms,
            headers=request.headers.kept,
            body=request.body,
        )
        key = request_key(request.bulk_transfer_id, request_id)
        packed = pack_request(kept)
        await self._within_bounds(lambda: self._object_store.put(key, packed), record)

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


def _fields(combination: Combination, request: Request, request_id: bytes) -> dict[str, Any]:
    """What the edge's messages have in common."""
    return {
        "type": combination.type,
        "action": combination.action,
        "status": combination.status,
        "bulk_transfer_id": request.bulk_transfer_id,
        "request_id": request_id,
        "source": request.headers.source,
        "received_at_ms": request.received_at_ms,
    }


def _record(combination: Combination, request: Request, value: bytes) -> NewRecord:
    return NewRecord(combination.topic, request.bulk_transfer_id, value, request.headers.trace)
