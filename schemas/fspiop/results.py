"""The bodies that the hub writes: result lists, states, and the forwarded POST. Absent means absent: no field is null.

A result list names every item in the order of the request (BULK-131), with its fulfilment or its error, and what the payee
added to it (extensionList) word for word.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from domain.fspiop_errors import FspiopError
from domain.identifiers import id_text

EXTENSION_VALUE_LENGTH_MAX = 128


class ItemResult(NamedTuple):
    """One line of a result list. `said` is the payee's own result for the item, of which the extras are kept."""

    transfer_id: bytes
    fulfilment: bytes | None
    error: FspiopError | None
    refused_by_payee: bool
    said: Mapping[str, Any] | None


def fulfilment_text(fulfilment: bytes) -> str:
    """The 32 bytes as FSPIOP writes them."""
    return base64.urlsafe_b64encode(fulfilment).rstrip(b"=").decode()


def state_body(state: str) -> bytes:
    """A PUT that says the state and nothing else."""
    return orjson.dumps({"bulkTransferState": state})


def result_body(
    state: str,
    completed_timestamp: str | None,
    items: Iterable[ItemResult],
    extensions: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The body of PUT /bulkTransfers/{ID} with a result per item."""
    body: dict[str, Any] = {"bulkTransferState": state}
    if completed_timestamp is not None:
        body["completedTimestamp"] = completed_timestamp
    body["individualTransferResults"] = [_result(item) for item in items]
    if extensions:
        body["extensionList"] = {"extension": [{"key": key, "value": value} for key, value in extensions]}
    return orjson.dumps(body)


def _result(item: ItemResult) -> dict[str, Any]:
    result: dict[str, Any] = {"transferId": id_text(item.transfer_id)}
    said = item.said or {}
    if item.error is not None:
        own = said.get("errorInformation") if item.refused_by_payee else None
        result["errorInformation"] = own or {
            "errorCode": item.error.code,
            "errorDescription": item.error.description,
        }
    elif item.fulfilment is not None:
        result["fulfilment"] = fulfilment_text(item.fulfilment)
    if "extensionList" in said:
        result["extensionList"] = said["extensionList"]
    return result


def forward_body(request: Mapping[str, Any], transfer_ids: frozenset[str]) -> bytes:
    """The POST to the payee: the payer's own request with only the items that could be reserved, in its order (BULK-07)."""
    body = {name: request[name] for name in ("bulkTransferId", "bulkQuoteId", "payerFsp", "payeeFsp")}
    body["individualTransfers"] = [
        item for item in request["individualTransfers"] if item["transferId"] in transfer_ids
    ]
    body["expiration"] = request["expiration"]
    if "extensionList" in request:
        body["extensionList"] = request["extensionList"]
    return orjson.dumps(body)


def transfer_body(
    state: str,
    fulfilment: str | None = None,
    completed_timestamp: str | None = None,
    cause: FspiopError | None = None,
) -> bytes:
    """The body of PUT and PATCH /transfers/{ID} by the hub; why a transfer was aborted stands in one extension, `cause`."""
    body: dict[str, Any] = {"transferState": state}
    if fulfilment is not None:
        body["fulfilment"] = fulfilment
    if completed_timestamp is not None:
        body["completedTimestamp"] = completed_timestamp
    if cause is not None:
        text = f"{cause.code}: {cause.description}"[:EXTENSION_VALUE_LENGTH_MAX]
        body["extensionList"] = {"extension": [{"key": "cause", "value": text}]}
    return orjson.dumps(body)
