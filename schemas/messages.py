"""The messages of the pipeline, as handlers see them: one dataclass per Avro record of `avro/`, field by field.

Ids from outside are 16 bytes (`domain.identifiers`), times are milliseconds since 1970, amounts are FSPIOP strings,
conditions and fulfilments base64url text as on the wire. Every message says its type, action and status, one of the
combinations of `domain.combinations`. A test compares each class with its newest schema.

Nobody changes a message. The classes are not frozen all the same: a frozen one takes three times as long to make, and a
transfer's way makes twelve.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class BulkPrepare:
    """adapter → bulk-prepare: a POST /bulkTransfers lies in the object store. `weight` is its count of items."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    request_id: bytes
    source: str
    received_at_ms: int
    weight: int


@dataclass(slots=True)
class TransferPrepare:
    """bulk-prepare → prepare: one item of a bulk, with what prepare checks. `hash` is SHA-256 over the item's body."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    transfer_key: int
    transfer_id: bytes
    payer_fsp: str
    payee_fsp: str
    currency: str
    amount: str
    condition: str
    expiration_ms: int
    hash: bytes


@dataclass(slots=True)
class TransferPosition:
    """prepare, fulfil, timeout → position: one transfer whose state calls for a move of money."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    transfer_key: int
    transfer_id: bytes


@dataclass(slots=True)
class BulkProcessing:
    """prepare, position, timeout → bulk-processing: what became of one item, with the error if it failed."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    transfer_key: int
    transfer_id: bytes
    error_code: str | None
    error_description: str | None


@dataclass(slots=True)
class BulkFulfil:
    """adapter → bulk-fulfil: a PUT /bulkTransfers/{ID} or its /error lies in the object store."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    request_id: bytes
    source: str
    received_at_ms: int
    weight: int


@dataclass(slots=True)
class TransferFulfil:
    """bulk-fulfil → fulfil: the payee's answer for one item; a refusal carries the error."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    transfer_key: int
    transfer_id: bytes
    fulfilment: str | None
    error_code: str | None
    error_description: str | None


@dataclass(slots=True)
class BulkGet:
    """adapter → bulk-get: a GET /bulkTransfers/{ID}."""

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    request_id: bytes
    source: str
    received_at_ms: int


@dataclass(slots=True)
class Notification:
    """every handler → notification: `to` is to be told what lies in the object store under `content`.

    `callback` is POST, PUT or PUT_ERROR. `request_id` is set where this answers one request, and unset for the forward
    and the final callback, of which there is one per bulk and FSP. `not_after_ms` bounds a POST to the payee.
    """

    type: str
    action: str
    status: str
    bulk_transfer_id: bytes
    to: str
    callback: str
    content: str
    request_id: bytes | None
    not_after_ms: int | None


@dataclass(slots=True)
class SinglePrepare:
    """adapter → single-prepare: a POST /transfers, kept under its request id, with what is checked of it.

    `hash` is SHA-256 over the canonical body; `destination` is FSPIOP-Destination where the request had one.
    """

    type: str
    action: str
    status: str
    transfer_id: bytes
    request_id: bytes
    source: str
    destination: str | None
    received_at_ms: int
    payer_fsp: str
    payee_fsp: str
    currency: str
    amount: str
    condition: str
    expiration_ms: int
    hash: bytes


@dataclass(slots=True)
class SinglePosition:
    """single-prepare, single-fulfil, timeout → single-position: one transfer whose state calls for a move of money."""

    type: str
    action: str
    status: str
    transfer_key: int
    transfer_id: bytes


@dataclass(slots=True)
class SingleFulfil:
    """adapter → single-fulfil: a PUT /transfers/{ID} (COMMITTED or RESERVED) or its /error, kept under its request id.

    `completed_timestamp` is the text that the payee sent, if it did; the error's extensionList stays in the request.
    """

    type: str
    action: str
    status: str
    transfer_id: bytes
    request_id: bytes
    source: str
    received_at_ms: int
    fulfilment: str | None
    completed_timestamp: str | None
    error_code: str | None
    error_description: str | None
    hash: bytes


@dataclass(slots=True)
class TransferGet:
    """adapter → transfer-get: a GET /transfers/{ID}."""

    type: str
    action: str
    status: str
    transfer_id: bytes
    request_id: bytes
    source: str
    received_at_ms: int


@dataclass(slots=True)
class SingleNotification:
    """every handler of single transfers → single-notification: what `to` is told of a single transfer.

    `callback` is POST, PUT, PUT_ERROR or PATCH. With `sent_request_id` it is that request of another FSP, passed on as it
    was sent (reference §11.22); else the hub says what `transfer_state` (its API form), fulfilment and error say.
    `request_id` is set where this answers one request; `not_after_ms` bounds a POST to the payee.
    """

    type: str
    action: str
    status: str
    transfer_id: bytes
    to: str
    callback: str
    sent_request_id: bytes | None
    transfer_state: str | None
    fulfilment: str | None
    completed_timestamp: str | None
    error_code: str | None
    error_description: str | None
    request_id: bytes | None
    not_after_ms: int | None


@dataclass(slots=True)
class Tick:
    """the clock → timeout: look at what is due. The clock is a partition of its own, so a tick has an offset too."""

    at_ms: int


@dataclass(slots=True)
class DeadLetter:
    """any handler → operators: one message that could not be worked on, whole, with where it stood and why.

    `value` is a record's value of its own (a frame of this one message, or the bytes that could not be decoded).
    """

    handler: str
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    reason: str
    at_ms: int


Message = (
    BulkPrepare
    | TransferPrepare
    | TransferPosition
    | BulkProcessing
    | BulkFulfil
    | TransferFulfil
    | BulkGet
    | Notification
    | SinglePrepare
    | SinglePosition
    | SingleFulfil
    | TransferGet
    | SingleNotification
    | Tick
    | DeadLetter
)
