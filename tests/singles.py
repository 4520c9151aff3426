"""Single transfers for tests: bodies as FSPs send them, the requests as the edge hands them on, and who was told what."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import text

from domain.combinations import (
    SINGLE_ABORT,
    SINGLE_COMMIT,
    SINGLE_PREPARE,
    SINGLE_RESERVE,
    TRANSFER_GET,
    Combination,
)
from domain.identifiers import id_bytes, id_text
from object_store.envelope import KeptRequest, pack_request, request_key, unpack_request
from schemas.fspiop.bodies import canonical_hash
from schemas.fspiop.datetimes import format_datetime, parse_datetime_ms
from schemas.messages import SingleFulfil, SinglePrepare, TransferGet
from tests.bulks import PAYEE, PAYER, condition_of, fulfilment_of
from tests.fspiop_document import DOCUMENT, check_body
from tests.pipeline import Pipeline

# What the payer signed is of no concern to the pipeline, which passes it on as it came.
SIGNED = {"content-type": "application/vnd.interoperability.transfers+json;version=1.1", "fspiop-signature": "{}"}


def transfer(amount: str = "10", *, now_ms: int, expires_in_ms: int = 3_600_000, **extra: Any) -> dict[str, Any]:
    """The body of a POST /transfers."""
    transfer_id = extra.pop("transferId", None) or str(uuid.uuid4())
    return {
        "transferId": transfer_id,
        "payerFsp": PAYER,
        "payeeFsp": PAYEE,
        "amount": {"currency": extra.pop("currency", "USD"), "amount": amount},
        "ilpPacket": "AYIBgQAAAAAAAASwNGxldmVsb25lLmRmc3A",
        "condition": condition_of(transfer_id),
        "expiration": format_datetime(now_ms + expires_in_ms),
        **extra,
    }


def fulfilled(body: Mapping[str, Any], state: str = "COMMITTED", **extra: Any) -> dict[str, Any]:
    """The body of the payee's PUT /transfers/{ID}."""
    return {"transferState": state, "fulfilment": fulfilment_of(body["transferId"]), **extra}


def failed(code: str = "5104", description: str = "Payee rejected") -> dict[str, Any]:
    return {"errorInformation": {"errorCode": code, "errorDescription": description}}


def post(pipeline: Pipeline, body: Mapping[str, Any], *, source: str = PAYER, destination: str | None = None) -> bytes:
    """A POST /transfers; returns the request id that the edge would have minted."""
    request_id = uuid.uuid4().bytes
    said = _keep(pipeline, SINGLE_PREPARE, body["transferId"], request_id, body, source)
    message = SinglePrepare(
        **said,
        destination=destination,
        payer_fsp=body["payerFsp"],
        payee_fsp=body["payeeFsp"],
        currency=body["amount"]["currency"],
        amount=body["amount"]["amount"],
        condition=body["condition"],
        expiration_ms=parse_datetime_ms(body["expiration"]),
        hash=canonical_hash(dict(body)),
    )
    pipeline.receive(SINGLE_PREPARE.topic, message.transfer_id, message)
    return request_id


def put(pipeline: Pipeline, transfer_id: str, body: Mapping[str, Any], *, source: str = PAYEE) -> bytes:
    """A PUT /transfers/{ID} that says COMMITTED or RESERVED, or with errorInformation a PUT …/error."""
    request_id = uuid.uuid4().bytes
    error = body.get("errorInformation", {})
    combination = SINGLE_ABORT if error else SINGLE_RESERVE if body["transferState"] == "RESERVED" else SINGLE_COMMIT
    said = _keep(pipeline, combination, transfer_id, request_id, body, source)
    message = SingleFulfil(
        **said,
        fulfilment=body.get("fulfilment"),
        completed_timestamp=body.get("completedTimestamp"),
        error_code=error.get("errorCode"),
        error_description=error.get("errorDescription"),
        hash=canonical_hash(dict(body)),
    )
    pipeline.receive(combination.topic, message.transfer_id, message)
    return request_id


def get(pipeline: Pipeline, transfer_id: str, *, source: str) -> bytes:
    request_id = uuid.uuid4().bytes
    message = TransferGet(**_said(TRANSFER_GET, transfer_id, request_id, source, pipeline.now()))
    pipeline.receive(TRANSFER_GET.topic, message.transfer_id, message)
    return request_id


def _said(combination: Combination, transfer_id: str, request_id: bytes, source: str, now_ms: int) -> dict[str, Any]:
    return {
        "type": combination.type,
        "action": combination.action,
        "status": combination.status,
        "transfer_id": id_bytes(transfer_id),
        "request_id": request_id,
        "source": source,
        "received_at_ms": now_ms,
    }


def _keep(
    pipeline: Pipeline,
    combination: Combination,
    transfer_id: str,
    request_id: bytes,
    body: Mapping[str, Any],
    source: str,
) -> dict[str, Any]:
    now_ms = pipeline.now()
    kept = KeptRequest(source, None, now_ms, SIGNED, orjson.dumps(body))
    pipeline.store.put(request_key(id_bytes(transfer_id), request_id), pack_request(kept))
    return _said(combination, transfer_id, request_id, source, now_ms)


@dataclass(frozen=True)
class Told:
    """A callback: `sent_by` is the FSP whose request it is, None where the hub says it."""

    callback: str
    kind: str
    body: Any
    sent_by: str | None


def told(pipeline: Pipeline, fsp: str, transfer_id: str) -> list[Told]:
    """What this FSP is told of a transfer, in order; what the hub says is valid by the document."""
    query = text(
        "SELECT callback, kind, content, headers FROM delivery"
        " WHERE resource = 'transfers' AND entity_id = :id AND fsp = :fsp ORDER BY delivery_id"
    )
    with pipeline.engine.connect() as tx:
        rows = tx.execute(query, {"id": transfer_id, "fsp": fsp}).all()
    found = []
    for callback, kind, content, headers in rows:
        stored = pipeline.store.get(content)
        if headers is None:
            request = unpack_request(stored)
            assert request.headers == SIGNED
            found.append(Told(callback, kind, orjson.loads(request.body), request.source))
            continue
        if DOCUMENT.exists():
            end = "/error" if callback == "PUT_ERROR" else ""
            method = "PUT" if callback == "PUT_ERROR" else callback
            assert check_body(method, f"/transfers/{id_text(id_bytes(transfer_id))}{end}", stored) == []
        found.append(Told(callback, kind, orjson.loads(stored), None))
    return found


def states(pipeline: Pipeline, transfer_id: str) -> list[str]:
    """The states of a transfer, in the order in which it came to them."""
    query = text(
        "SELECT from_state, to_state FROM transfer_state_change JOIN transfer USING (transfer_key)"
        " WHERE transfer_id = :id"
    )
    with pipeline.engine.connect() as tx:
        steps = {row[0]: row[1] for row in tx.execute(query, {"id": transfer_id})}
    found, state = [], "-"
    while state in steps:
        state = steps[state]
        found.append(state)
    return found
