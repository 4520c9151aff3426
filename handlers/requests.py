"""Reading back what the edge kept: the payload of a POST or a PUT, or None where it is missing or corrupt (BULK-128)."""

import logging
from typing import Any

import orjson

from domain.identifiers import id_text
from handlers.handler import SlowDown
from object_store.envelope import CorruptRequest, KeptRequest, request_key, unpack_request
from object_store.interface import ObjectMissing, ObjectStore, ObjectStoreUnavailable

_log = logging.getLogger(__name__)


def read_request(store: ObjectStore, bulk_transfer_id: bytes, request_id: bytes) -> KeptRequest | None:
    """The kept request, or None where there is none that can be read; raises SlowDown while the store is away."""
    key = request_key(bulk_transfer_id, request_id)
    try:
        return unpack_request(store.get(key))
    except ObjectStoreUnavailable as away:
        raise SlowDown(str(away)) from away
    except (ObjectMissing, CorruptRequest) as lost:
        _log.error(
            "the payload %s cannot be read: %s", key, lost, extra={"bulk_transfer_id": id_text(bulk_transfer_id)}
        )
        return None


def read_json(request: KeptRequest) -> dict[str, Any] | None:
    """The body as JSON; the edge has validated it, so anything that is no object here is a corrupt payload."""
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        _log.error("a kept body is not JSON: %s", error)
        return None
    return body if isinstance(body, dict) else None
