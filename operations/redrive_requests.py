"""Requests that lie in the object store and that no handler has read: found, told apart, and made into messages again.

A request is kept before its message is published, so a topic that was lost has lost nothing that the store does not have. A
request counts as unread when no row names it: neither its bulk or transfer (as the POST or as the answer that was accepted)
nor a callback that answered it. Three kinds of requests are found so, and all of them may be published:

    read by nobody          answered 202 (or 200), and its message was lost with the topic
    answered 503            the edge kept it, and its message may or may not have landed; its sender was told to send again.
                            It is a request like any other: what was sent again since is found by its content
    read, and left no row   sent again while its bulk was under way, or refused to somebody who is no participant: a repeat
                            is dropped or answered once more, and a refusal is the same refusal

What an envelope says tells which request it was: the resource stands in the media type, and each verb's body has a member of
its own. A GET leaves no object; who waits for its answer asks again.

Requests of one id are published in the order of their receipt. An answer of a payee whose bulk or transfer has not come so
far waits: it would be refused for ever, because it is judged against what it answers (`judge_request`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from db.bulks import BulkRow, bulks_by_id
from db.redrive import answered_requests
from db.singles import singles_by_id
from domain.combinations import (
    BULK_FULFIL,
    BULK_FULFIL_ERROR,
    BULK_PREPARE,
    SINGLE_ABORT,
    SINGLE_COMMIT,
    SINGLE_PREPARE,
    SINGLE_RESERVE,
    Combination,
)
from domain.identifiers import id_bytes
from domain.redrive import KeptRequestKind, RequestVerdict, Standing, judge_request
from domain.single_transfers import SingleTransfer
from domain.states import BulkState, TransferState
from handlers.handler import Output
from object_store.envelope import CorruptRequest, KeptRequest, unpack_request
from object_store.interface import ObjectMissing, ObjectStore, StoredObject
from schemas.fspiop.bodies import canonical_hash
from schemas.fspiop.datetimes import parse_datetime_ms
from schemas.messages import BulkFulfil, BulkPrepare, Message, SingleFulfil, SinglePrepare

_PREFIX = "requests/"
_NOT_YET_ACCEPTED = frozenset({BulkState.RECEIVED, BulkState.PENDING_PREPARE, BulkState.PENDING_INVALID})
# RESERVED as an answer came with FSPIOP 1.1 (bulk_api_adapter/fspiop/transfers.py).
_VERSION_WITHOUT_RESERVED = "version=1.0"


class UnreadRequest(NamedTuple):
    """A request that no row names, and what is to be done with it.

    `kind` and `output` are None where it cannot be read; `output` alone where the request says nothing.
    """

    entity_id: bytes
    request_id: bytes
    kind: KeptRequestKind | None
    source: str
    received_at_ms: int
    verdict: RequestVerdict
    output: Output | None


@dataclass(frozen=True, slots=True)
class FoundRequest:
    """A kept request with its body as JSON."""

    entity_id: bytes
    request_id: bytes
    kept: KeptRequest
    body: dict[str, Any]


def kept_since(store: ObjectStore, since_ms: int, objects_max: int) -> Iterator[list[StoredObject]]:
    """The requests that were put at this time or later, a page at a time; requests of one id are never parted."""
    after = _PREFIX
    carried: list[StoredObject] = []
    while page := store.page(_PREFIX, after, objects_max):
        after = page[-1].key
        young = carried + [one for one in page if one.put_ms >= since_ms]
        # The requests of the last id may go on in the next page; an id with more requests than a page is cut.
        carried = [one for one in young if _entity(one.key) == _entity(after)]
        if len(carried) >= objects_max:
            carried = []
        whole = young[: len(young) - len(carried)]
        if whole:
            yield whole
    if carried:
        yield carried


def unread_requests(
    tx: Connection, store: ObjectStore, objects: Sequence[StoredObject], *, weight_max: int
) -> list[UnreadRequest]:
    """Those of the objects that no row names, in the order in which they came, id by id.

    `weight_max` is how many items an answer makes work for that aborts a whole bulk. Raises ObjectStoreUnavailable. No body
    is held any longer than it takes to make its message.
    """
    found = [one for key in _unnamed(tx, objects) if (one := _read(store, key, weight_max)) is not None]
    ids = list({one.entity_id for one in found})
    bulks, singles = bulks_by_id(tx, ids), singles_by_id(tx, ids)
    unread: list[UnreadRequest] = []
    for entity_id, group in groupby(found, key=lambda one: one.entity_id):
        requests = sorted(group, key=lambda one: (one.received_at_ms, one.request_id))
        posts = {one.kind for one in requests if one.kind is not None and one.kind.is_post}
        for one in requests:
            if one.kind is None:
                unread.append(one)
                continue
            standing = _standing(one.kind, bulks.get(entity_id), singles.get(entity_id))
            post = KeptRequestKind.POST_SINGLE if one.kind.is_single else KeptRequestKind.POST_BULK
            unread.append(one._replace(verdict=judge_request(one.kind, standing, post_is_kept=post in posts)))
    return unread


def _unnamed(tx: Connection, objects: Sequence[StoredObject]) -> list[str]:
    """The keys of those that no row names."""
    keys = {one.key: (_entity(one.key), id_bytes(one.key.rsplit("/", 1)[1])) for one in objects}
    ids = list({entity for entity, _ in keys.values()})
    named = answered_requests(tx, [request_id for _, request_id in keys.values()])
    for bulk in bulks_by_id(tx, ids).values():
        named |= {bulk.request_id} | ({bulk.fulfil_request_id} if bulk.fulfil_request_id else set())
    for single in singles_by_id(tx, ids).values():
        named |= {single.request_id} | ({single.fulfil_request_id} if single.fulfil_request_id else set())
    return [key for key, (_, request_id) in keys.items() if request_id not in named]


def _read(store: ObjectStore, key: str, weight_max: int) -> UnreadRequest | None:
    """The request under a key, with the message that the edge made of it; None where retention was quicker."""
    entity_id, request_id = _entity(key), id_bytes(key.rsplit("/", 1)[1])
    unreadable = UnreadRequest(entity_id, request_id, None, "", 0, RequestVerdict.PUBLISH, None)
    try:
        kept = unpack_request(store.get(key))
        body = orjson.loads(kept.body)
    except ObjectMissing:
        return None
    except (CorruptRequest, orjson.JSONDecodeError):
        return unreadable
    kind = kind_of(kept.headers.get("content-type", ""), body) if isinstance(body, dict) else None
    if kind is None:
        return unreadable._replace(source=kept.source, received_at_ms=kept.received_at_ms)
    output = message_of(kind, FoundRequest(entity_id, request_id, kept, body), weight_max)
    return UnreadRequest(entity_id, request_id, kind, kept.source, kept.received_at_ms, RequestVerdict.PUBLISH, output)


def kind_of(content_type: str, body: Mapping[str, Any]) -> KeptRequestKind | None:
    """Which request has such a media type and such a body; None for none that the edge lets in."""
    if "individualTransfers" in body:
        return KeptRequestKind.POST_BULK
    if "bulkTransferState" in body:
        return KeptRequestKind.PUT_BULK
    if "transferState" in body:
        return KeptRequestKind.PUT_SINGLE
    if "errorInformation" in body:
        if ".bulktransfers+" in content_type.lower():
            return KeptRequestKind.PUT_BULK_ERROR
        return KeptRequestKind.PUT_SINGLE_ERROR if ".transfers+" in content_type.lower() else None
    return KeptRequestKind.POST_SINGLE if "ilpPacket" in body else None


def _standing(kind: KeptRequestKind | None, bulk: BulkRow | None, single: SingleTransfer | None) -> Standing:
    if kind is None or kind.is_post:
        return Standing(is_known=False, may_be_answered=True)
    if kind.is_single:
        return Standing(single is not None, single is not None and single.state is not TransferState.RECEIVED_PREPARE)
    return Standing(bulk is not None, bulk is not None and bulk.state not in _NOT_YET_ACCEPTED)


def message_of(kind: KeptRequestKind, found: FoundRequest, weight_max: int) -> Output | None:
    """The message that the edge made of this request; None for an answer that says nothing."""
    combination = _combination(kind, found)
    if combination is None:
        return None
    said: dict[str, Any] = {
        "type": combination.type,
        "action": combination.action,
        "status": combination.status,
        "request_id": found.request_id,
        "source": found.kept.source,
        "received_at_ms": found.kept.received_at_ms,
    }
    message: Message
    match kind:
        case KeptRequestKind.POST_BULK:
            items = len(found.body["individualTransfers"])
            message = BulkPrepare(**said, bulk_transfer_id=found.entity_id, weight=items)
        case KeptRequestKind.PUT_BULK | KeptRequestKind.PUT_BULK_ERROR:
            # What aborts everything names nothing; its weight bounds a batch, and may be too large.
            items = len(found.body.get("individualTransferResults", ()))
            aborts = found.body.get("bulkTransferState") != "COMPLETED" or not items
            message = BulkFulfil(**said, bulk_transfer_id=found.entity_id, weight=weight_max if aborts else items)
        case KeptRequestKind.POST_SINGLE:
            message = _single_prepare(said, found)
        case _:
            error = found.body.get("errorInformation", {})
            message = SingleFulfil(
                **said,
                transfer_id=found.entity_id,
                fulfilment=found.body.get("fulfilment"),
                completed_timestamp=found.body.get("completedTimestamp"),
                error_code=error.get("errorCode"),
                error_description=error.get("errorDescription"),
                hash=canonical_hash(found.body),
            )
    return Output(combination.topic, found.entity_id, message)


def _combination(kind: KeptRequestKind, found: FoundRequest) -> Combination | None:
    match kind:
        case KeptRequestKind.POST_BULK:
            return BULK_PREPARE
        case KeptRequestKind.PUT_BULK:
            return BULK_FULFIL
        case KeptRequestKind.PUT_BULK_ERROR:
            return BULK_FULFIL_ERROR
        case KeptRequestKind.POST_SINGLE:
            return SINGLE_PREPARE
        case KeptRequestKind.PUT_SINGLE_ERROR:
            return SINGLE_ABORT
        case KeptRequestKind.PUT_SINGLE:  # pragma: no branch  # the last there is: mypy finds one that is missing
            state = found.body["transferState"]
            has_reserved = not found.kept.headers.get("content-type", "").endswith(_VERSION_WITHOUT_RESERVED)
            if state == "RESERVED" and has_reserved:
                return SINGLE_RESERVE
            return SINGLE_COMMIT if state == "COMMITTED" else None


def _single_prepare(said: Mapping[str, Any], found: FoundRequest) -> SinglePrepare:
    body = found.body
    return SinglePrepare(
        **said,
        transfer_id=found.entity_id,
        destination=found.kept.destination,
        payer_fsp=body["payerFsp"],
        payee_fsp=body["payeeFsp"],
        currency=body["amount"]["currency"],
        amount=body["amount"]["amount"],
        condition=body["condition"],
        expiration_ms=parse_datetime_ms(body["expiration"]),
        hash=canonical_hash(body),
    )


def _entity(key: str) -> bytes:
    return id_bytes(key.split("/")[1])
