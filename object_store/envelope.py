"""A kept HTTP request: one line of JSON (who sent it, when it came, the headers that matter), then the body as it came."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from domain.identifiers import id_text


class CorruptRequest(Exception):
    """The object under a request's key is not a kept request."""


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """`received_at_ms` is the edge's clock in milliseconds since 1970; header names are in lower case."""

    source: str
    destination: str | None
    received_at_ms: int
    headers: Mapping[str, str]
    body: bytes


def request_prefix(bulk_transfer_id: bytes) -> str:
    """The prefix under which all requests of one bulk are kept."""
    return f"requests/{id_text(bulk_transfer_id)}/"


def request_key(bulk_transfer_id: bytes, request_id: bytes) -> str:
    return f"{request_prefix(bulk_transfer_id)}{id_text(request_id)}"


def pack_request(request: KeptRequest) -> bytes:
    envelope = {
        "source": request.source,
        "destination": request.destination,
        "received_at_ms": request.received_at_ms,
        "headers": dict(request.headers),
    }
    return orjson.dumps(envelope) + b"\n" + request.body


def unpack_request(packed: bytes) -> KeptRequest:
    """Raises CorruptRequest."""
    line, separator, body = packed.partition(b"\n")
    if not separator:
        raise CorruptRequest("no envelope line")
    try:
        envelope = orjson.loads(line)
        return KeptRequest(
            source=envelope["source"],
            destination=envelope["destination"],
            received_at_ms=envelope["received_at_ms"],
            headers=envelope["headers"],
            body=body,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptRequest(f"unreadable envelope: {error}") from error
