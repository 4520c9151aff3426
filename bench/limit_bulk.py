"""One bulk's life as nothing but writes: the statements of db/ with all their parameters made beforehand.

The large statements (a row per item) are recorded: the function of db/ is given a `_Recorder` instead of a connection, and
what it would have executed is executed later, so that no row is encoded while the clock runs. The small ones (a row per
bulk) are called as they are. The bulk's own row is written before the clock starts, because the keys of all other rows
come from its sequence: three rows of some eight thousand. Journals are real ones, of the messages that the handlers would
have sent.

Two transactions, as few as there can be: one until the payee is asked, one after it has answered.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, TextClause

from bench.fsps import AMOUNTS, CURRENCY
from db.bulks import BulkFulfilment, BulkStateChange, NewBulk, insert_bulk_steps, insert_bulks, insert_fulfilments
from db.deliveries import NewDelivery, insert_deliveries
from db.expirations import end_expirations
from db.positions import write_positions
from db.progress import Advance, advance
from db.reference_data import HUB_NAME
from db.results import BulkResult, insert_results
from db.transfers import (
    NewTransfer,
    TransferStateChange,
    insert_items,
    insert_transfer_steps,
    insert_transfers,
    update_items,
)
from domain.bulk_get import Role
from domain.bulk_processing import FulfilOutcome
from domain.combinations import (
    BULK_FINAL,
    BULK_FORWARD,
    ITEM_COMMITTED,
    ITEM_FULFIL,
    ITEM_PREPARE,
    ITEM_RESERVED,
    POSITION_COMMIT,
    POSITION_PREPARE,
    TOPIC_BULK_FULFIL,
    TOPIC_BULK_PREPARE,
    TOPIC_BULK_PROCESSING,
    TOPIC_NOTIFICATION,
    TOPIC_TRANSFER_FULFIL,
    TOPIC_TRANSFER_POSITION,
    TOPIC_TRANSFER_PREPARE,
)
from domain.delivery import Callback, DeliveryKind, Resource
from domain.identifiers import transfer_key
from domain.money import format_amount, parse_amount
from domain.states import BulkState, ItemState, TransferState
from handlers import journal
from handlers.handler import Output
from handlers.loop import LoopLimits
from handlers.news import item_news, to_position
from handlers.notices import notice
from object_store.content import content_key
from operations.simulated_bulk import SECRET, base64url, fulfilment_bytes
from schemas.callbacks import callback_headers
from schemas.fspiop.datetimes import format_datetime
from schemas.messages import TransferFulfil, TransferPrepare

# Both phases pass these handlers; each has a progress row per topic, the last journal of which is empty.
_FIRST_PHASE = (
    ("bulk-prepare", TOPIC_BULK_PREPARE),
    ("prepare", TOPIC_TRANSFER_PREPARE),
    ("position", TOPIC_TRANSFER_POSITION),
    ("bulk-processing", TOPIC_BULK_PROCESSING),
    ("notification", TOPIC_NOTIFICATION),
)
_SECOND_PHASE = (
    ("bulk-fulfil", TOPIC_BULK_FULFIL),
    ("fulfil", TOPIC_TRANSFER_FULFIL),
    *_FIRST_PHASE[2:],
)
PROGRESS_ROWS = dict.fromkeys(_FIRST_PHASE + _SECOND_PHASE)

_EXPIRES_IN_MS = 3_600_000

Call = tuple[TextClause, dict[str, Any]]


class _Recorder:
    """Stands where a connection is expected, and keeps what would have been executed."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def execute(self, statement: TextClause, parameters: dict[str, Any]) -> None:
        self.calls.append((statement, parameters))

    @property
    def connection(self) -> Connection:
        return cast(Connection, self)


@dataclass(frozen=True, slots=True)
class Pair:
    """The payer and payee of one worker, with their POSITION accounts; `partition` is the worker's in handler_progress."""

    partition: int
    payer_fsp: str
    payee_fsp: str
    payer_account: int
    payee_account: int


@dataclass(frozen=True, slots=True)
class LimitBulk:
    """A bulk's writes: large statements and journals by phase, and what is small as the functions of db/ take it."""

    bulk_key: int
    first_statements: Sequence[Call]
    second_statements: Sequence[Call]
    first_journals: Sequence[bytes | None]
    second_journals: Sequence[bytes | None]
    fulfilment: BulkFulfilment
    results: Sequence[BulkResult]
    forward: NewDelivery
    finals: Sequence[NewDelivery]
    # What the two accounts hold after it.
    payer_position: int
    payee_position: int


@dataclass(frozen=True, slots=True)
class _Member:
    """A transfer of the bulk; `position` is the payer's after it."""

    key: int
    transfer_id: uuid.UUID
    amount: int
    condition: bytes
    fulfilment: bytes
    position: int


def write_bulk_rows(tx: Connection, pair: Pair, count: int, items: int, now_ms: int) -> list[tuple[int, uuid.UUID]]:
    """The bulks' own rows, whose keys all others carry."""
    ids = [uuid.uuid4() for _ in range(count)]
    bulks = [
        NewBulk(
            bulk_transfer_id=one.bytes,
            bulk_quote_id=str(uuid.uuid4()),
            payer_fsp=pair.payer_fsp,
            payee_fsp=pair.payee_fsp,
            expiration_ms=now_ms + _EXPIRES_IN_MS,
            item_count=items,
            request_id=uuid.uuid4().bytes,
            received_at_ms=now_ms,
            hash=hashlib.sha256(one.bytes).digest(),
            extensions=(),
            expires=True,
        )
        for one in ids
    ]
    keys = insert_bulks(tx, bulks)
    return [(keys[one.bytes], one) for one in ids]


def make_bulk(
    pair: Pair, bulk_key: int, bulk_transfer_id: uuid.UUID, items: int, payer_before: int, now_ms: int
) -> LimitBulk:
    """Everything that is written of one bulk; `payer_before` is what the payer's position holds before it."""
    members = _members(bulk_key, items, payer_before)
    bulk_id, content = bulk_transfer_id.bytes, content_key(bulk_transfer_id.bytes)
    return LimitBulk(
        bulk_key=bulk_key,
        first_statements=_first_statements(pair, members, now_ms),
        second_statements=_second_statements(members),
        first_journals=[
            _journal([_prepare(pair, bulk_id, one, now_ms) for one in members]),
            _journal(
                [
                    to_position(POSITION_PREPARE, pair.payer_account, bulk_id, one.key, one.transfer_id.bytes)
                    for one in members
                ]
            ),
            _journal([item_news(ITEM_RESERVED, bulk_id, one.key, one.transfer_id.bytes) for one in members]),
            _journal([notice(BULK_FORWARD, bulk_id, pair.payee_fsp, "POST", content, not_after_ms=now_ms)]),
            None,
        ],
        second_journals=[
            _journal([_fulfil(bulk_id, one) for one in members]),
            _journal(
                [
                    to_position(POSITION_COMMIT, pair.payee_account, bulk_id, one.key, one.transfer_id.bytes)
                    for one in members
                ]
            ),
            _journal([item_news(ITEM_COMMITTED, bulk_id, one.key, one.transfer_id.bytes) for one in members]),
            _journal([notice(BULK_FINAL, bulk_id, fsp, "PUT", content) for fsp in (pair.payer_fsp, pair.payee_fsp)]),
            None,
        ],
        fulfilment=BulkFulfilment(
            bulk_key,
            uuid.uuid4().bytes,
            "COMPLETED",
            format_datetime(now_ms),
            FulfilOutcome.VALID,
            now_ms,
            hashlib.sha256(bulk_id).digest(),
            (),
        ),
        results=[BulkResult(bulk_key, role.value, content, "PUT", content) for role in Role],
        forward=_delivery(bulk_transfer_id, pair.payee_fsp, DeliveryKind.FORWARD, Callback.POST, content, now_ms),
        finals=[
            _delivery(bulk_transfer_id, fsp, DeliveryKind.FINAL, Callback.PUT, content, now_ms)
            for fsp in (pair.payer_fsp, pair.payee_fsp)
        ],
        payer_position=members[-1].position,
        payee_position=-members[-1].position,
    )


def _members(bulk_key: int, items: int, position: int) -> list[_Member]:
    members = []
    for number in range(items):
        transfer_id, amount = uuid.uuid4(), parse_amount(AMOUNTS[number % len(AMOUNTS)])
        fulfilment = fulfilment_bytes(SECRET, str(transfer_id))
        position += amount
        members.append(
            _Member(
                transfer_key(bulk_key, number + 1),
                transfer_id,
                amount,
                hashlib.sha256(fulfilment).digest(),
                fulfilment,
                position,
            )
        )
    return members


def _first_statements(pair: Pair, members: Sequence[_Member], now_ms: int) -> Sequence[Call]:
    recorder = _Recorder()
    insert_items(recorder.connection, [(one.key, one.transfer_id.bytes) for one in members])
    insert_transfers(recorder.connection, [_transfer(pair, one, now_ms) for one in members])
    before, after = TransferState.RECEIVED_PREPARE, TransferState.RESERVED
    reserved = [
        TransferStateChange(one.key, before, after, ITEM_PREPARE.action, position=one.position) for one in members
    ]
    insert_transfer_steps(recorder.connection, reserved)
    update_items(recorder.connection, [(one.key, ItemState.ACCEPTED, None) for one in members])
    return recorder.calls


def _second_statements(members: Sequence[_Member]) -> Sequence[Call]:
    recorder = _Recorder()
    before, between, after = TransferState.RESERVED, TransferState.RECEIVED_FULFIL, TransferState.COMMITTED
    reason = ITEM_FULFIL.action
    fulfilled = [TransferStateChange(one.key, before, between, reason, fulfilment=one.fulfilment) for one in members]
    committed = [TransferStateChange(one.key, between, after, reason, position=-one.position) for one in members]
    insert_transfer_steps(recorder.connection, fulfilled)
    insert_transfer_steps(recorder.connection, committed)
    update_items(recorder.connection, [(one.key, ItemState.COMPLETED, None) for one in members])
    return recorder.calls


def write_first_phase(tx: Connection, pair: Pair, bulk: LimitBulk, number: int) -> None:
    """From the request to the row that forwards it; `number` counts the worker's bulks from 0."""
    _bulk_steps(tx, bulk, (None, BulkState.RECEIVED), (BulkState.RECEIVED, BulkState.PENDING_PREPARE))
    _execute(tx, bulk.first_statements)
    write_positions(tx, {pair.payer_account: bulk.payer_position})
    _bulk_steps(tx, bulk, (BulkState.PENDING_PREPARE, BulkState.ACCEPTED))
    insert_deliveries(tx, [bulk.forward])
    for (handler, topic), outputs in zip(_FIRST_PHASE, bulk.first_journals, strict=True):
        second = (handler, topic) in _SECOND_PHASE
        _advance(tx, pair, handler, topic, 2 * number if second else number, outputs)


def write_second_phase(tx: Connection, pair: Pair, bulk: LimitBulk, number: int) -> None:
    """From the payee's answer to the rows that tell both."""
    _bulk_steps(tx, bulk, (BulkState.ACCEPTED, BulkState.PROCESSING))
    insert_fulfilments(tx, [bulk.fulfilment])
    _execute(tx, bulk.second_statements)
    write_positions(tx, {pair.payee_account: bulk.payee_position})
    _bulk_steps(tx, bulk, (BulkState.PROCESSING, BulkState.COMPLETED))
    insert_results(tx, bulk.results)
    end_expirations(tx, [bulk.bulk_key])
    insert_deliveries(tx, bulk.finals)
    for (handler, topic), outputs in zip(_SECOND_PHASE, bulk.second_journals, strict=True):
        first = (handler, topic) in _FIRST_PHASE
        _advance(tx, pair, handler, topic, 2 * number + 1 if first else number, outputs)


def _execute(tx: Connection, calls: Sequence[Call]) -> None:
    for statement, parameters in calls:
        tx.execute(statement, parameters)


def _bulk_steps(tx: Connection, bulk: LimitBulk, *steps: tuple[BulkState | None, BulkState]) -> None:
    insert_bulk_steps(tx, [BulkStateChange(bulk.bulk_key, before, after) for before, after in steps])


def _advance(tx: Connection, pair: Pair, handler: str, topic: str, offset: int, outputs: bytes | None) -> None:
    stored = advance(tx, handler, topic, [Advance(pair.partition, offset, offset + 1, 0)], outputs)
    assert stored == 1, f"the progress of {handler} is not at {offset}"


def _transfer(pair: Pair, member: _Member, now_ms: int) -> NewTransfer:
    return NewTransfer(
        transfer_key=member.key,
        transfer_id=member.transfer_id.bytes,
        hash=hashlib.sha256(member.transfer_id.bytes).digest(),
        amount=member.amount,
        currency=CURRENCY,
        payer_account=pair.payer_account,
        payee_account=pair.payee_account,
        condition=member.condition,
        expiration_ms=now_ms + _EXPIRES_IN_MS,
        state=TransferState.RECEIVED_PREPARE,
        reason=POSITION_PREPARE.action,
        error=None,
    )


def _journal(outputs: Sequence[Output]) -> bytes | None:
    return journal.pack(journal.frames(outputs, LoopLimits().frame_messages_max))


def _prepare(pair: Pair, bulk_id: bytes, member: _Member, now_ms: int) -> Output:
    message = TransferPrepare(
        *(ITEM_PREPARE.type, ITEM_PREPARE.action, ITEM_PREPARE.status),
        bulk_transfer_id=bulk_id,
        transfer_key=member.key,
        transfer_id=member.transfer_id.bytes,
        payer_fsp=pair.payer_fsp,
        payee_fsp=pair.payee_fsp,
        currency=CURRENCY,
        amount=format_amount(member.amount),
        condition=base64url(member.condition),
        expiration_ms=now_ms + _EXPIRES_IN_MS,
        hash=hashlib.sha256(member.transfer_id.bytes).digest(),
    )
    return Output(TOPIC_TRANSFER_PREPARE, bulk_id, message)


def _fulfil(bulk_id: bytes, member: _Member) -> Output:
    message = TransferFulfil(
        *(ITEM_FULFIL.type, ITEM_FULFIL.action, ITEM_FULFIL.status),
        bulk_transfer_id=bulk_id,
        transfer_key=member.key,
        transfer_id=member.transfer_id.bytes,
        fulfilment=base64url(member.fulfilment),
        error_code=None,
        error_description=None,
    )
    return Output(TOPIC_TRANSFER_FULFIL, bulk_id, message)


def _delivery(
    bulk_transfer_id: uuid.UUID, fsp: str, kind: DeliveryKind, callback: Callback, content: str, now_ms: int
) -> NewDelivery:
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    headers = callback_headers(Resource.BULK_TRANSFERS, callback, HUB_NAME, fsp, bulk_transfer_id.bytes, at)
    return NewDelivery(Resource.BULK_TRANSFERS, bulk_transfer_id, fsp, kind, None, callback, content, headers, None)
