"""The bodies of single transfers that simulated FSPs send; conditions, fulfilments and ILP packets as in simulated_bulk."""

from dataclasses import dataclass

import orjson

from domain.money import parse_amount
from operations.simulated_bulk import SECRET, base64url, condition_text, ilp_packet, new_id, timestamp

TRANSFERS_CONTENT = "application/vnd.interoperability.transfers+json;version={version}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A POST /transfers, ready to send."""

    transfer_id: str
    payer_fsp: str
    payee_fsp: str
    body: bytes


def build_transfer(
    payer_fsp: str,
    payee_fsp: str,
    *,
    amount: str = "1",
    currency: str = "USD",
    expires_in_ms: int = 60_000,
    secret: bytes = SECRET,
    transfer_id: str | None = None,
    expiration: str | None = None,
) -> Transfer:
    """A single transfer whose condition both simulated FSPs can fulfil."""
    transfer_id = transfer_id or new_id()
    address = f"g.{payee_fsp}.msisdn".encode()
    body = {
        "transferId": transfer_id,
        "payerFsp": payer_fsp,
        "payeeFsp": payee_fsp,
        "amount": {"currency": currency, "amount": amount},
        "ilpPacket": base64url(ilp_packet(parse_amount(amount), address, bytes(160))),
        "condition": condition_text(secret, transfer_id),
        "expiration": expiration or timestamp(expires_in_ms),
    }
    return Transfer(transfer_id, payer_fsp, payee_fsp, orjson.dumps(body))
