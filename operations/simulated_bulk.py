"""The bodies that simulated FSPs send: a bulk with real conditions, and the payee's answers with the fulfilments to them.

A transfer's fulfilment is SHA-256 over a secret and the transfer's id, its condition SHA-256 over the fulfilment: whoever
knows the secret (both simulated FSPs do, nobody else) can fulfil, and a wrong fulfilment is wrong for the same reason as in
life. The ILP packet is a real one too: type 1, the amount, an address of the payee, and data up to the size asked for.
"""

import hashlib
import os
import struct
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from domain.identifiers import id_text
from domain.money import parse_amount

SECRET = b"the secret of the simulated FSPs"
FSPIOP_CONTENT = "application/vnd.interoperability.bulkTransfers+json;version={version}"


@dataclass(frozen=True, slots=True)
class Bulk:
    """A POST /bulkTransfers, ready to send; `transfer_ids` in the order of the request."""

    bulk_transfer_id: str
    payer_fsp: str
    payee_fsp: str
    transfer_ids: tuple[str, ...]
    body: bytes


def fulfilment_bytes(secret: bytes, transfer_id: str) -> bytes:
    """The 32 bytes that fulfil this transfer."""
    return hashlib.sha256(secret + transfer_id.encode()).digest()


def fulfilment_text(secret: bytes, transfer_id: str) -> str:
    return base64url(fulfilment_bytes(secret, transfer_id))


def condition_text(secret: bytes, transfer_id: str) -> str:
    return base64url(hashlib.sha256(fulfilment_bytes(secret, transfer_id)).digest())


def base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def timestamp(milliseconds_from_now: int = 0) -> str:
    """An FSPIOP DateTime: milliseconds are mandatory."""
    at = datetime.fromtimestamp(time.time() + milliseconds_from_now / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """Random UUIDs of version 4, many of them from one call for random bytes."""
    random = os.urandom(16 * count)
    ids = []
    for start in range(0, 16 * count, 16):
        value = bytearray(random[start : start + 16])
        value[6] = value[6] & 0x0F | 0x40
        value[8] = value[8] & 0x3F | 0x80
        ids.append(id_text(bytes(value)))
    return ids


def build_bulk(
    payer_fsp: str,
    payee_fsp: str,
    *,
    items: int = 1000,
    amount: str | Sequence[str] = "1",
    currency: str | Sequence[str] = "USD",
    expires_in_ms: int = 60_000,
    secret: bytes = SECRET,
    bulk_transfer_id: str | None = None,
    bulk_quote_id: str | None = None,
    transfer_ids: Sequence[str] | None = None,
    expiration: str | None = None,
    ilp_data_bytes: int = 160,
) -> Bulk:
    """A bulk of `items` transfers; amounts and currencies are one for all, or taken in turns from a sequence.

    Whoever names every id and the expiration gets the same bytes each time.
    """
    ids = list(transfer_ids) if transfer_ids is not None else new_ids(items)
    amounts = [amount] if isinstance(amount, str) else amount
    currencies = [currency] if isinstance(currency, str) else currency
    address = f"g.{payee_fsp}.msisdn".encode()
    data = bytes(ilp_data_bytes)
    transfers = []
    for number, transfer_id in enumerate(ids):
        item_amount = amounts[number % len(amounts)]
        fulfilment = fulfilment_bytes(secret, transfer_id)
        transfers.append(
            {
                "transferId": transfer_id,
                "transferAmount": {"currency": currencies[number % len(currencies)], "amount": item_amount},
                "ilpPacket": base64url(ilp_packet(parse_amount(item_amount), address, data)),
                "condition": base64url(hashlib.sha256(fulfilment).digest()),
            }
        )
    bulk_id = bulk_transfer_id or new_id()
    body = {
        "bulkTransferId": bulk_id,
        "bulkQuoteId": bulk_quote_id or new_id(),
        "payerFsp": payer_fsp,
        "payeeFsp": payee_fsp,
        "individualTransfers": transfers,
        "expiration": expiration or timestamp(expires_in_ms),
    }
    return Bulk(bulk_id, payer_fsp, payee_fsp, tuple(ids), orjson.dumps(body))


def ilp_packet(amount: int, address: bytes, data: bytes) -> bytes:
    """An ILP version 1 payment packet in its octet encoding: type, length, amount, address, data, no extensions.

    An amount that does not fit into ILP's 64 bits is cut: no switch reads it, and FSPIOP's own amount stands beside it.
    """
    contents = struct.pack(">QB", amount & 0xFFFF_FFFF_FFFF_FFFF, len(address)) + address + _length(data) + data + b"\0"
    return b"\x01" + _length(contents) + contents


def _length(value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets
