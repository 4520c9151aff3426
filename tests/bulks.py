"""Bulks for tests: FSPs that can pay, bodies as FSPs send them, and what the database holds afterwards."""

import base64
import hashlib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import UNITS, from_numeric
from schemas.fspiop.datetimes import format_datetime

PAYER = "payerfsp"
PAYEE = "payeefsp"
STRANGER = "strangerfsp"


def provision(
    engine: Engine,
    *,
    cap: int = 1_000_000,
    funds: int = 1_000_000,
    fsps: Sequence[str] = (PAYER, PAYEE, STRANGER),
    currency: str = "USD",
) -> None:
    """FSPs with accounts in a currency; `cap` and `funds` are the payer's, in whole units of it."""
    for name in fsps:
        is_payer = name == PAYER
        provision_fsp(
            engine, name, currency, (cap if is_payer else 1_000) * UNITS, (funds if is_payer else 1_000) * UNITS, {}
        )


def fulfilment_of(transfer_id: str) -> str:
    """The fulfilment whose condition `item` sets: 32 bytes that only depend on the transferId."""
    return _base64(hashlib.sha256(f"preimage of {transfer_id}".encode()).digest())


def condition_of(transfer_id: str) -> str:
    return _base64(hashlib.sha256(hashlib.sha256(f"preimage of {transfer_id}".encode()).digest()).digest())


def item(amount: str = "10", currency: str = "USD", transfer_id: str | None = None, **extra: Any) -> dict[str, Any]:
    transfer_id = transfer_id or str(uuid.uuid4())
    return {
        "transferId": transfer_id,
        "transferAmount": {"currency": currency, "amount": amount},
        "ilpPacket": "AYIBgQAAAAAAAASwNGxldmVsb25lLmRmc3A",
        "condition": condition_of(transfer_id),
        **extra,
    }


def bulk(
    items: Sequence[Mapping[str, Any]], *, expires_in_ms: int = 3_600_000, now_ms: int, **extra: Any
) -> dict[str, Any]:
    return {
        "bulkTransferId": str(uuid.uuid4()),
        "bulkQuoteId": str(uuid.uuid4()),
        "payerFsp": PAYER,
        "payeeFsp": PAYEE,
        "individualTransfers": list(items),
        "expiration": format_datetime(now_ms + expires_in_ms),
        **extra,
    }


def answer(results: Sequence[Mapping[str, Any]], *, state: str = "COMPLETED", **extra: Any) -> dict[str, Any]:
    return {"bulkTransferState": state, "individualTransferResults": list(results), **extra}


def committed(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"transferId": one["transferId"], "fulfilment": fulfilment_of(one["transferId"])}


def refused(one: Mapping[str, Any], code: str = "5104", text_: str = "Payee rejected") -> dict[str, Any]:
    return {"transferId": one["transferId"], "errorInformation": {"errorCode": code, "errorDescription": text_}}


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass(frozen=True)
class World:
    """What stands in the database about bulks and money, comparable between two runs."""

    bulks: Mapping[str, list[str]]
    items: Counter[str]
    transfers: Counter[str]
    positions: Mapping[tuple[str, str], int]


def world(engine: Engine) -> World:
    """The histories of all bulks, how many items and transfers are in which state, all POSITION accounts."""
    with engine.connect() as tx:
        steps = tx.execute(
            text(
                "SELECT b.bulk_transfer_id, s.to_state"
                " FROM bulk_transfer b JOIN bulk_transfer_state_change s USING (bulk_key)"
                " ORDER BY b.bulk_key, s.created_date, s.from_state = '-' DESC, s.from_state = 'RECEIVED' DESC,"
                " s.from_state = 'PENDING_PREPARE' DESC, s.from_state = 'ACCEPTED' DESC, s.from_state = 'PROCESSING' DESC"
            )
        ).all()
        items = tx.execute(text("SELECT bulk_processing_state FROM bulk_transfer_association")).scalars()
        transfers = tx.execute(
            text(
                "SELECT s.to_state FROM transfer_state_change s WHERE NOT EXISTS (SELECT FROM transfer_state_change n"
                " WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)"
            )
        ).scalars()
        positions = tx.execute(
            text(
                "SELECT p.name, c.currency_id, v.value"
                " FROM participant p JOIN participant_currency c USING (participant_id)"
                " JOIN participant_position v USING (participant_currency_id) WHERE c.ledger_account_type = 'POSITION'"
            )
        ).all()
        bulks: dict[str, list[str]] = {}
        for bulk_transfer_id, state in steps:
            bulks.setdefault(str(bulk_transfer_id), []).append(state)
        return World(
            bulks,
            Counter(items),
            Counter(transfers),
            {(name, currency): from_numeric(value) for name, currency, value in positions},
        )
