"""The transaction object inside an ilpPacket: what payer and payee agreed on, which the switch itself never reads.

Two encodings are in use: ILP version 1 (type 1: amount, address, data) and version 4 (type 12: amount, expiry, condition,
address, data), each base64url in FSPIOP. The data is JSON, as it is or as base64url once more, as the Mojaloop SDK makes it.
"""

import base64
import binascii
import re
from typing import Any, Final

import orjson

_VERSION_1: Final = 1
_VERSION_4_PREPARE: Final = 12
_AMOUNT_BYTES = 8
_EXPIRY_AND_CONDITION_BYTES = 17 + 32
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]+=*")


class NoTransaction(ValueError):
    """The packet holds no transaction object that can be read."""


def transaction_of(ilp_packet: str) -> dict[str, Any]:
    """The transaction object; raises NoTransaction."""
    packet = _decoded(ilp_packet.encode())
    if packet is None or not packet or packet[0] not in {_VERSION_1, _VERSION_4_PREPARE}:
        raise NoTransaction("the ilpPacket is of no known kind")
    contents, _ = _variable(packet, 1)
    start = _AMOUNT_BYTES + (_EXPIRY_AND_CONDITION_BYTES if packet[0] == _VERSION_4_PREPARE else 0)
    _, start = _variable(contents, start)
    data, _ = _variable(contents, start)
    for text in (_decoded(data), data):
        try:
            transaction = None if text is None else orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        if isinstance(transaction, dict):
            return transaction
    raise NoTransaction("the ilpPacket's data is no JSON object")


def _decoded(text: bytes) -> bytes | None:
    if _BASE64URL.fullmatch(text) is None:
        return None
    bare = text.rstrip(b"=")
    try:
        return base64.urlsafe_b64decode(bare + b"=" * (-len(bare) % 4))
    except binascii.Error:
        return None


def _variable(octets: bytes, start: int) -> tuple[bytes, int]:
    """An octet string with its length before it, as OER has it, and where the next field begins."""
    length_at = octets[start : start + 1]
    if not length_at:
        raise NoTransaction("the ilpPacket is cut off")
    size, start = length_at[0], start + 1
    if size >= 0x80:
        size_bytes = octets[start : start + (size & 0x7F)]
        start += len(size_bytes)
        size = int.from_bytes(size_bytes)
    value = octets[start : start + size]
    if len(value) != size:
        raise NoTransaction("the ilpPacket is cut off")
    return value, start + size
