"""bulk-prepare: a POST /bulkTransfers becomes a bulk with its items, or is refused.

Consumes    topic-bulk-prepare: BulkPrepare (#1), whose payload lies in the object store
Refuses     as domain/bulk_prepare.py says, in that order
Changes     accepted: RECEIVED, PENDING_PREPARE, an item per individual transfer, an expiration
            refused: RECEIVED, PENDING_INVALID, REJECTED in one go (X-31), the error and what the payer is told
Emits       accepted: a TransferPrepare per item (#4), in the order of the request or by ascending amount (BULK-11)
            refused: the payer's PUT /error (#3); a duplicate: the stored callback (#2) or 3106

The payloads are read before the first statement, and results are kept before the rows that name them are committed: an
object without a row is litter, a row without its object would be a lie. Both have a bounded time (`object_calls`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from db.bulks import (
    BulkError,
    BulkRow,
    BulkStateChange,
    NewBulk,
    bulks_by_id,
    insert_bulk_errors,
    insert_bulk_steps,
    insert_bulks,
)
from db.participants import participants_by_name
from db.results import BulkResult, insert_results, results_of
from db.transfers import insert_items
from domain.bulk_get import Role
from domain.bulk_prepare import (
    BulkPrepareDecision,
    BulkPrepareFacts,
    BulkRequest,
    BulkRules,
    KnownBulk,
    Verdict,
    decide_bulk_prepare,
)
from domain.combinations import (
    BULK_PREPARE_DUPLICATE,
    BULK_PREPARE_MODIFIED,
    BULK_PREPARE_REFUSED,
    ITEM_PREPARE,
    TOPIC_BULK_PREPARE,
    TOPIC_TRANSFER_PREPARE,
    require_all_known,
)
from domain.fspiop_errors import MODIFIED_REQUEST
from domain.identifiers import id_bytes, transfer_key
from domain.money import parse_amount
from domain.states import BULK_API_STATES, BulkState
from handlers.handler import Output
from handlers.metrics import note_refused_bulk
from handlers.notices import notice
from handlers.object_calls import BatchCalls, ObjectCalls
from handlers.requests import read_json, read_request
from handlers.rounds import rounds
from handlers.stored_answers import told_callback
from object_store.interface import ObjectStore
from schemas.fspiop.bodies import canonical_hash
from schemas.fspiop.datetimes import parse_datetime_ms
from schemas.fspiop.errors import error_body
from schemas.fspiop.results import state_body
from schemas.messages import BulkPrepare, TransferPrepare


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A message with its payload; `body` and `request` are None where that cannot be read."""

    message: BulkPrepare
    destination: str | None
    body: dict[str, Any] | None
    request: BulkRequest | None


@dataclass(frozen=True, slots=True)
class _Decided:
    incoming: _Incoming
    decision: BulkPrepareDecision
    known: BulkRow | None


class BulkPrepareHandler:
    """See the module's docstring. `hub_name` is the participant that is the hub itself."""

    name = "bulk-prepare"
    topic = TOPIC_BULK_PREPARE
    message = BulkPrepare

    def __init__(self, store: ObjectStore, rules: BulkRules, hub_name: str) -> None:
        self._store = store
        self._calls = ObjectCalls(store)
        self._rules = rules
        self._hub_name = hub_name

    def weight(self, message: BulkPrepare) -> int:
        return message.weight

    def handle(self, tx: Connection, messages: Sequence[BulkPrepare]) -> list[Output]:
        outputs: list[Output] = []
        require_all_known(self.topic, messages)
        with self._calls.of_batch() as calls:
            incoming = list(calls.in_order(self._read, messages))
        # One block for all rounds: the rows of the first are locked until the last has ended.
        with self._calls.of_batch() as calls:
            for round_ in rounds(incoming, lambda one: one.message.bulk_transfer_id):
                outputs += self._save(tx, self._decide(tx, round_), calls)
                # The next round may tell again what this one has told, so that has to be there.
                calls.finish()
        return outputs

    def give_up(self, tx: Connection, message: BulkPrepare, reason: str) -> list[Output]:
        """The sender was answered 202, so the bulk must end: it is refused with 2001."""
        unread = _Incoming(message, None, None, None)
        with self._calls.of_batch() as calls:
            return self._save(tx, self._decide(tx, [unread]), calls)

    def _read(self, message: BulkPrepare) -> _Incoming:
        kept = read_request(self._store, message.bulk_transfer_id, message.request_id)
        body = None if kept is None else read_json(kept)
        if kept is None or body is None:
            return _Incoming(message, None, None, None)
        return _Incoming(message, kept.destination, body, bulk_request(body))

    def _decide(self, tx: Connection, incoming: Sequence[_Incoming]) -> list[_Decided]:
        known = bulks_by_id(tx, [one.message.bulk_transfer_id for one in incoming])
        names = {one.message.source for one in incoming}
        for one in incoming:
            names |= {name for name in (one.destination,) if name is not None}
            if one.request is not None:
                names |= {one.request.payer_fsp, one.request.payee_fsp}
        participants = {name: found.is_active for name, found in participants_by_name(tx, names).items()}
        return [self._decide_one(one, known.get(one.message.bulk_transfer_id), participants) for one in incoming]

    def _decide_one(self, one: _Incoming, bulk: BulkRow | None, participants: Mapping[str, bool]) -> _Decided:
        facts = BulkPrepareFacts(
            request_id=one.message.request_id,
            source=one.message.source,
            destination=one.destination,
            received_at_ms=one.message.received_at_ms,
            request=one.request,
            known=None if bulk is None else KnownBulk(bulk.request_id, bulk.hash, bulk.payer_fsp, bulk.state),
            participants=participants,
            hub_name=self._hub_name,
        )
        return _Decided(one, decide_bulk_prepare(facts, self._rules), bulk)

    def _save(self, tx: Connection, decided: Sequence[_Decided], calls: BatchCalls) -> list[Output]:
        written = [one for one in decided if one.decision.verdict in (Verdict.ACCEPT, Verdict.REFUSE)]
        keys = insert_bulks(tx, [_new_bulk(one) for one in written]) if written else {}
        accepted = [one for one in written if one.decision.verdict is Verdict.ACCEPT]
        refused = [one for one in written if one.decision.verdict is Verdict.REFUSE]
        outputs = self._accept(tx, accepted, keys) if accepted else []
        outputs += _refuse(tx, refused, keys, calls) if refused else []
        outputs += self._resend(tx, [one for one in decided if one.decision.verdict is Verdict.RESEND], calls)
        outputs += [_answer(one, calls) for one in decided if one.decision.verdict is Verdict.ANSWER_ERROR]
        return outputs

    def _accept(self, tx: Connection, accepted: Sequence[_Decided], keys: Mapping[bytes, int]) -> list[Output]:
        steps: list[BulkStateChange] = []
        items: list[tuple[int, bytes]] = []
        outputs: list[Output] = []
        for one in accepted:
            request = _readable(one)
            bulk_key = keys[one.incoming.message.bulk_transfer_id]
            steps += _steps(bulk_key, BulkState.RECEIVED, BulkState.PENDING_PREPARE)
            items += [
                (transfer_key(bulk_key, number), transfer_id)
                for number, transfer_id in enumerate(request.transfer_ids, start=1)
            ]
            outputs += self._split(one, bulk_key)
        insert_bulk_steps(tx, steps)
        insert_items(tx, items)
        return outputs

    def _split(self, one: _Decided, bulk_key: int) -> list[Output]:
        request, body = _readable(one), one.incoming.body
        assert body is not None
        return prepare_outputs(one.incoming.message.bulk_transfer_id, bulk_key, body, request, self._rules)

    def _resend(self, tx: Connection, resent: Sequence[_Decided], calls: BatchCalls) -> list[Output]:
        known = {one.incoming.message.bulk_transfer_id: one.known for one in resent if one.known is not None}
        if not known:
            return []
        results = results_of(tx, [bulk.bulk_key for bulk in known.values()])

        def told(one: _Decided) -> tuple[str, str]:
            bulk = known[one.incoming.message.bulk_transfer_id]
            return told_callback(self._store, results[bulk.bulk_key, Role.PAYER.value], bulk.state)

        outputs: list[Output] = []
        for one, (callback, content) in zip(resent, calls.in_order(told, resent), strict=True):
            message = one.incoming.message
            outputs.append(
                notice(
                    BULK_PREPARE_DUPLICATE,
                    message.bulk_transfer_id,
                    message.source,
                    callback,
                    content,
                    request_id=message.request_id,
                )
            )
        return outputs


def _refuse(tx: Connection, refused: Sequence[_Decided], keys: Mapping[bytes, int], calls: BatchCalls) -> list[Output]:
    list_content = calls.put(state_body(BULK_API_STATES[BulkState.REJECTED]))
    steps: list[BulkStateChange] = []
    errors: list[BulkError] = []
    results: list[BulkResult] = []
    outputs: list[Output] = []
    for one in refused:
        message, error = one.incoming.message, one.decision.error
        assert error is not None
        note_refused_bulk(error.code)
        bulk_key = keys[message.bulk_transfer_id]
        content = calls.put(error_body(error))
        steps += _steps(
            bulk_key, BulkState.RECEIVED, BulkState.PENDING_INVALID, BulkState.REJECTED, reason=error.description
        )
        errors.append(BulkError(bulk_key, error.code, error.description, content))
        results.append(BulkResult(bulk_key, Role.PAYER.value, list_content, "PUT_ERROR", content))
        outputs.append(notice(BULK_PREPARE_REFUSED, message.bulk_transfer_id, message.source, "PUT_ERROR", content))
    insert_bulk_steps(tx, steps)
    insert_bulk_errors(tx, errors)
    insert_results(tx, results)
    return outputs


def _answer(one: _Decided, calls: BatchCalls) -> Output:
    message, error = one.incoming.message, one.decision.error
    assert error is not None
    note_refused_bulk(error.code)
    combination = BULK_PREPARE_MODIFIED if error == MODIFIED_REQUEST else BULK_PREPARE_REFUSED
    content = calls.put(error_body(error))
    return notice(
        combination,
        message.bulk_transfer_id,
        message.source,
        "PUT_ERROR",
        content,
        request_id=message.request_id,
    )


def bulk_request(body: Mapping[str, Any]) -> BulkRequest:
    """What a POST /bulkTransfers says, of a body that the edge has validated."""
    return BulkRequest(
        payer_fsp=body["payerFsp"],
        payee_fsp=body["payeeFsp"],
        expiration_ms=parse_datetime_ms(body["expiration"]),
        transfer_ids=tuple(id_bytes(item["transferId"]) for item in body["individualTransfers"]),
        hash=canonical_hash(body),
    )


def prepare_outputs(
    bulk_transfer_id: bytes, bulk_key: int, body: Mapping[str, Any], request: BulkRequest, rules: BulkRules
) -> list[Output]:
    """A message per item, each with the bulk's expiration (BULK-20, BULK-21)."""
    items = [
        TransferPrepare(
            ITEM_PREPARE.type,
            ITEM_PREPARE.action,
            ITEM_PREPARE.status,
            bulk_transfer_id,
            transfer_key(bulk_key, number),
            transfer_id,
            request.payer_fsp,
            request.payee_fsp,
            item["transferAmount"]["currency"],
            item["transferAmount"]["amount"],
            item["condition"],
            request.expiration_ms,
            canonical_hash(item),
        )
        for number, (item, transfer_id) in enumerate(
            zip(body["individualTransfers"], request.transfer_ids, strict=True), start=1
        )
    ]
    if rules.ascending_amount_order:
        items.sort(key=lambda item: parse_amount(item.amount))
    return [Output(TOPIC_TRANSFER_PREPARE, bulk_transfer_id, item) for item in items]


def _readable(one: _Decided) -> BulkRequest:
    assert one.incoming.request is not None, "only a request that could be read is accepted"
    return one.incoming.request


def _steps(bulk_key: int, *states: BulkState, reason: str | None = None) -> list[BulkStateChange]:
    return [
        BulkStateChange(bulk_key, before, after, reason) for before, after in zip((None, *states), states, strict=False)
    ]


def _new_bulk(one: _Decided) -> NewBulk:
    message, request, body = one.incoming.message, one.incoming.request, one.incoming.body
    extensions: list[tuple[str, str]] = []
    if body is not None and "extensionList" in body:
        extensions = [(pair["key"], pair["value"]) for pair in body["extensionList"]["extension"]]
    return NewBulk(
        bulk_transfer_id=message.bulk_transfer_id,
        bulk_quote_id=None if body is None else body["bulkQuoteId"],
        payer_fsp=message.source if request is None else request.payer_fsp,
        payee_fsp=None if request is None else request.payee_fsp,
        expiration_ms=None if request is None else request.expiration_ms,
        item_count=0 if request is None else len(request.transfer_ids),
        request_id=message.request_id,
        received_at_ms=message.received_at_ms,
        hash=b"" if request is None else request.hash,
        extensions=extensions,
        expires=one.decision.verdict is Verdict.ACCEPT,
    )
