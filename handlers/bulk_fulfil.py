"""bulk-fulfil: the payee's PUT /bulkTransfers/{ID}, or its /error, becomes an answer for every item that was forwarded.

Consumes    topic-bulk-fulfil: BulkFulfil (#12, and bulk-abort for PUT /error), whose payload lies in the object store
Refuses     as domain/bulk_fulfil.py says, in that order; who sent it is judged before anything is written (D12)
Changes     ACCEPTED becomes PROCESSING; the answer with its duplicate check and extensions; the error of the bulk after a
            PUT /error or an answer that is invalid as a whole
Emits       a TransferFulfil per forwarded item (#19, or bulk-abort: refused, or failed); to the payee 3210, 3100 or 3106
            (#20), or the stored callback

A fulfil and a timeout that want the same bulk race on the key (bulk, ACCEPTED); the loser tries again, and finds the other's
state: a fulfil that came too late has no effect.

The payloads are read before the bulks are locked. What is kept while they are has a bounded time (`object_calls`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from db.bulks import (
    BulkError,
    BulkFulfilment,
    BulkRow,
    BulkStateChange,
    bulks_by_id,
    insert_bulk_errors,
    insert_bulk_steps,
    insert_fulfilments,
    lock_bulks,
)
from db.participants import participants_by_name
from db.results import results_of
from db.transfers import ItemRow, items_of
from domain.bulk_fulfil import (
    BulkToFulfil,
    FulfilDecision,
    FulfilFacts,
    FulfilRequest,
    FulfilRules,
    FulfilVerdict,
    ItemAnswer,
    MemberAnswer,
    decide_bulk_fulfil,
)
from domain.bulk_get import Role
from domain.bulk_processing import FulfilOutcome
from domain.combinations import (
    BULK_FULFIL_DUPLICATE,
    BULK_FULFIL_ERROR,
    BULK_FULFIL_MODIFIED,
    BULK_FULFIL_REFUSED,
    ITEM_FULFIL,
    ITEM_FULFIL_FAILED,
    ITEM_FULFIL_REFUSED,
    TOPIC_BULK_FULFIL,
    TOPIC_TRANSFER_FULFIL,
    require_all_known,
)
from domain.fspiop_errors import MODIFIED_REQUEST, FspiopError
from domain.identifiers import bulk_key_of, id_bytes
from domain.states import BulkState, ItemState
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
from schemas.messages import BulkFulfil, TransferFulfil


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A message with its payload; `body` and `request` are None where that cannot be read."""

    message: BulkFulfil
    raw: bytes
    body: dict[str, Any] | None
    request: FulfilRequest | None


@dataclass(frozen=True, slots=True)
class _Decided:
    incoming: _Incoming
    bulk: BulkRow | None
    decision: FulfilDecision


class BulkFulfilHandler:
    """See the module's docstring."""

    name = "bulk-fulfil"
    topic = TOPIC_BULK_FULFIL
    message = BulkFulfil

    def __init__(self, store: ObjectStore, rules: FulfilRules) -> None:
        self._store = store
        self._calls = ObjectCalls(store)
        self._rules = rules

    def weight(self, message: BulkFulfil) -> int:
        return message.weight

    def handle(self, tx: Connection, messages: Sequence[BulkFulfil]) -> list[Output]:
        outputs: list[Output] = []
        require_all_known(self.topic, messages)
        with self._calls.of_batch() as calls:
            incoming = list(calls.in_order(self._read, messages))
        # One block for all rounds: the locks of the first are held until the last has ended.
        with self._calls.of_batch() as calls:
            for round_ in rounds(incoming, lambda one: one.message.bulk_transfer_id):
                outputs += self._save(tx, self._decide(tx, round_), calls)
                # The next round may tell again what this one has told, so that has to be there.
                calls.finish()
        return outputs

    def give_up(self, tx: Connection, message: BulkFulfil, reason: str) -> list[Output]:
        """The payee is told that its answer could not be read and may send it again; the bulk waits, or expires."""
        with self._calls.of_batch() as calls:
            return self._save(tx, self._decide(tx, [_Incoming(message, b"", None, None)]), calls)

    def _read(self, message: BulkFulfil) -> _Incoming:
        kept = read_request(self._store, message.bulk_transfer_id, message.request_id)
        body = None if kept is None else read_json(kept)
        if kept is None or body is None:
            return _Incoming(message, b"", None, None)
        request = fulfil_request(body, is_error=message.action == BULK_FULFIL_ERROR.action)
        return _Incoming(message, kept.body, body, request)

    def _decide(self, tx: Connection, incoming: Sequence[_Incoming]) -> list[_Decided]:
        ids = [one.message.bulk_transfer_id for one in incoming]
        participants = participants_by_name(tx, {one.message.source for one in incoming})
        # Whoever is no participant has no endpoint, so there is nobody to answer.
        incoming = [one for one in incoming if one.message.source in participants]
        bulks = bulks_by_id(tx, ids)
        lock_bulks(tx, [bulk.bulk_key for bulk in bulks.values()])
        bulks = bulks_by_id(tx, ids)
        waiting = {bulk.bulk_key: bulk.item_count for bulk in bulks.values() if bulk.state is BulkState.ACCEPTED}
        forwarded = _forwarded(items_of(tx, waiting) if waiting else ())
        return [
            self._decide_one(
                one,
                bulks.get(one.message.bulk_transfer_id),
                forwarded,
                source_is_active=participants[one.message.source].is_active,
            )
            for one in incoming
        ]

    def _decide_one(
        self,
        one: _Incoming,
        bulk: BulkRow | None,
        forwarded: Mapping[int, Mapping[bytes, int]],
        *,
        source_is_active: bool,
    ) -> _Decided:
        known = None
        if bulk is not None:
            known = BulkToFulfil(
                bulk.payee_fsp,
                bulk.state,
                bulk.fulfil_request_id,
                bulk.fulfil_hash,
                forwarded.get(bulk.bulk_key, {}),
            )
        message = one.message
        facts = FulfilFacts(
            message.request_id, message.source, message.received_at_ms, one.request, known, source_is_active
        )
        return _Decided(one, bulk, decide_bulk_fulfil(facts, self._rules))

    def _save(self, tx: Connection, decided: Sequence[_Decided], calls: BatchCalls) -> list[Output]:
        outputs = self._accept(tx, [one for one in decided if one.decision.verdict is FulfilVerdict.ACCEPT], calls)
        outputs += self._resend(tx, [one for one in decided if one.decision.verdict is FulfilVerdict.RESEND], calls)
        outputs += [_answer(one, calls) for one in decided if one.decision.verdict is FulfilVerdict.ANSWER_ERROR]
        return outputs

    def _accept(self, tx: Connection, accepted: Sequence[_Decided], calls: BatchCalls) -> list[Output]:
        if not accepted:
            return []
        steps: list[BulkStateChange] = []
        fulfilments: list[BulkFulfilment] = []
        errors: list[BulkError] = []
        outputs: list[Output] = []
        for one in accepted:
            bulk, decision = one.bulk, one.decision
            assert bulk is not None
            assert decision.outcome is not None
            steps.append(
                BulkStateChange(bulk.bulk_key, BulkState.ACCEPTED, BulkState.PROCESSING, decision.outcome.value)
            )
            fulfilments.append(_fulfilment(one, bulk.bulk_key, decision.outcome))
            if decision.error is not None and decision.outcome in (FulfilOutcome.INVALID, FulfilOutcome.ERROR):
                errors.append(_bulk_error(one, bulk.bulk_key, decision.error, calls))
            outputs += [member_output(bulk.bulk_transfer_id, member) for member in decision.members]
        insert_bulk_steps(tx, steps)
        insert_fulfilments(tx, fulfilments)
        if errors:
            insert_bulk_errors(tx, errors)
        return outputs

    def _resend(self, tx: Connection, resent: Sequence[_Decided], calls: BatchCalls) -> list[Output]:
        keys = [one.bulk.bulk_key for one in resent if one.bulk is not None]
        results = results_of(tx, keys) if keys else {}

        def told(one: _Decided) -> tuple[str, str]:
            assert one.bulk is not None
            return told_callback(self._store, results[one.bulk.bulk_key, Role.PAYEE.value], one.bulk.state)

        outputs: list[Output] = []
        for one, (callback, content) in zip(resent, calls.in_order(told, resent), strict=True):
            message = one.incoming.message
            outputs.append(
                notice(
                    BULK_FULFIL_DUPLICATE,
                    message.bulk_transfer_id,
                    message.source,
                    callback,
                    content,
                    request_id=message.request_id,
                )
            )
        return outputs


def _bulk_error(one: _Decided, bulk_key: int, error: FspiopError, calls: BatchCalls) -> BulkError:
    """What the payer will be told: the payee's own body byte for byte, or the hub's error."""
    theirs = one.decision.outcome is FulfilOutcome.ERROR
    note_refused_bulk(error.code)
    content = calls.put(one.incoming.raw if theirs else error_body(error))
    return BulkError(bulk_key, error.code, error.description, content)


def _answer(one: _Decided, calls: BatchCalls) -> Output:
    message, error = one.incoming.message, one.decision.error
    assert error is not None
    note_refused_bulk(error.code)
    return notice(
        BULK_FULFIL_MODIFIED if error == MODIFIED_REQUEST else BULK_FULFIL_REFUSED,
        message.bulk_transfer_id,
        message.source,
        "PUT_ERROR",
        calls.put(error_body(error)),
        request_id=message.request_id,
    )


def fulfil_request(body: Mapping[str, Any], *, is_error: bool) -> FulfilRequest:
    """What a PUT /bulkTransfers/{ID}, or its /error, says, of a body that the edge has validated."""
    timestamp = body.get("completedTimestamp")
    return FulfilRequest(
        state=body.get("bulkTransferState"),
        error=_error(body) if is_error else None,
        completed_ms=None if timestamp is None else parse_datetime_ms(timestamp),
        answers=[_item_answer(result) for result in body.get("individualTransferResults", ())],
        hash=canonical_hash(body),
    )


def _error(body: Mapping[str, Any]) -> FspiopError:
    information = body["errorInformation"]
    return FspiopError(information["errorCode"], information["errorDescription"])


def _item_answer(result: Mapping[str, Any]) -> ItemAnswer:
    return ItemAnswer(
        transfer_id=id_bytes(result["transferId"]),
        fulfilment=result.get("fulfilment"),
        error=_error(result) if "errorInformation" in result else None,
    )


def _forwarded(items: Sequence[ItemRow]) -> dict[int, dict[bytes, int]]:
    """Per bulk key the transferIds that were forwarded, with their transfer keys, in the order of the request."""
    forwarded: dict[int, dict[bytes, int]] = {}
    for item in items:
        if item.state is ItemState.ACCEPTED:
            forwarded.setdefault(bulk_key_of(item.transfer_key), {})[item.transfer_id] = item.transfer_key
    return forwarded


def _fulfilment(one: _Decided, bulk_key: int, outcome: FulfilOutcome) -> BulkFulfilment:
    message, body, request = one.incoming.message, one.incoming.body, one.incoming.request
    assert body is not None
    assert request is not None
    extensions = body.get("extensionList", {}).get("extension", ())
    return BulkFulfilment(
        bulk_key=bulk_key,
        request_id=message.request_id,
        bulk_transfer_state=request.state,
        completed_timestamp=body.get("completedTimestamp"),
        outcome=outcome,
        received_at_ms=message.received_at_ms,
        hash=request.hash,
        extensions=[(pair["key"], pair["value"]) for pair in extensions],
    )


def member_output(bulk_transfer_id: bytes, member: MemberAnswer) -> Output:
    """What goes on to fulfil for one member of a bulk."""
    refused_or_failed = ITEM_FULFIL_REFUSED if member.refused else ITEM_FULFIL_FAILED
    combination = ITEM_FULFIL if member.error is None else refused_or_failed
    message = TransferFulfil(
        combination.type,
        combination.action,
        combination.status,
        bulk_transfer_id,
        member.transfer_key,
        member.transfer_id,
        member.fulfilment,
        None if member.error is None else member.error.code,
        None if member.error is None else member.error.description,
    )
    return Output(TOPIC_TRANSFER_FULFIL, bulk_transfer_id, message)
