"""What payer and payee agreed on, read out of the ilpPacket of a transfer, in a bulk or single, for operators."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Engine

from db.transactions import request_of
from domain.fspiop_errors import ErrorCode
from object_store.envelope import CorruptRequest, request_key, unpack_request
from object_store.interface import ObjectMissing, ObjectStore, ObjectStoreUnavailable
from schemas.fspiop.errors import Refusal
from schemas.fspiop.ilp_packets import NoTransaction, transaction_of


def read_transaction(engine: Engine, object_store: ObjectStore | None, transfer_id: UUID) -> dict[str, Any]:
    """The transaction object.

    Refused: no such transfer 3208, its request is gone (retention) or holds no transaction 3200, the store is away 2003.
    """
    with engine.connect() as tx:
        found = request_of(tx, transfer_id)
    if found is None:
        raise Refusal(ErrorCode.TRANSFER_NOT_FOUND, "Provided Transfer ID was not found on the server.")
    if object_store is None:
        raise Refusal(ErrorCode.SERVICE_UNAVAILABLE, "this admin app has no object store")
    try:
        request = unpack_request(object_store.get(request_key(found.entity_id.bytes, found.request_id.bytes)))
        return transaction_of(_ilp_packet(orjson.loads(request.body), str(transfer_id)))
    except ObjectStoreUnavailable:
        raise Refusal(ErrorCode.SERVICE_UNAVAILABLE, "the object store does not answer, send it again") from None
    except (ObjectMissing, CorruptRequest, orjson.JSONDecodeError, LookupError):
        raise Refusal(ErrorCode.ID_NOT_FOUND, "the request of this transfer is not kept any more") from None
    except NoTransaction as error:
        raise Refusal(ErrorCode.ID_NOT_FOUND, f"this transfer has no transaction: {error}") from None


def _ilp_packet(body: dict[str, Any], transfer_id: str) -> str:
    """Of the transfer itself, or of the item of its bulk; raises LookupError."""
    for item in body.get("individualTransfers", [body]):
        if item["transferId"] == transfer_id:
            packet: str = item["ilpPacket"]
            return packet
    raise LookupError(transfer_id)
