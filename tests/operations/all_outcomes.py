"""A database in which bulks have ended in every way, and some have not ended: what operators' commands are tried on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from bulk_api_adapter.admin.funds import FundsOrder, funds_in, funds_out_abort, funds_out_commit, funds_out_reserve
from bulk_api_adapter.admin.limits import set_limit
from bulk_api_adapter.admin.participants import read_participant
from domain.combinations import TOPIC_TRANSFER_POSITION
from domain.money import UNITS
from object_store.interface import ObjectStore
from schemas.topics import CATALOGUE
from stream.interface import TopicDescription
from stream.table import TableStream
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, refused
from tests.flows.test_expiry import end_by_time, expire
from tests.pipeline import Pipeline

Body = dict[str, Any]


@dataclass(frozen=True)
class AllOutcomes:
    """The bulks by what became of them, as they were posted."""

    mixed: Body
    refused: Body
    over_limit: Body
    refused_by_payee: Body
    error_of_payee: Body
    expired_reserved: Body
    expired_unreserved: Body
    accepted: Body
    pending: Body
    single_open: Body
    singles_ended: tuple[Body, ...]

    @property
    def ended(self) -> list[Body]:
        return [
            self.mixed,
            self.refused,
            self.over_limit,
            self.refused_by_payee,
            self.error_of_payee,
            self.expired_reserved,
            self.expired_unreserved,
        ]


def make_pipeline(engine: Engine, store: ObjectStore) -> Pipeline:
    provision(engine)
    stream = TableStream(engine)
    stream.create_topics(TopicDescription(t.name, t.partitions, t.retention_ms) for t in CATALOGUE.values())
    return Pipeline(engine, store, stream)


def make_all_outcomes(pipeline: Pipeline) -> AllOutcomes:
    """Bulks of all ends with their callbacks written down, funds in and out, and a limit that was lowered and raised."""
    mixed_items = [item("10"), item("20"), item("30"), item("40"), item("5", currency="EUR")]
    mixed = _posted(pipeline, mixed_items)
    answered = [committed(mixed_items[0]), refused(mixed_items[1]), committed(mixed_items[2])]
    answered[2] = {**answered[2], "fulfilment": committed(mixed_items[0])["fulfilment"]}
    pipeline.put(mixed["bulkTransferId"], answer(answered), source=PAYEE)
    pipeline.run()

    refused_bulk = bulk([item()], now_ms=pipeline.now(), payeeFsp="nobody")
    pipeline.post(refused_bulk, source=PAYER)
    pipeline.run()

    set_limit(pipeline.engine, PAYER, "USD", 5 * UNITS, actor="tests")
    over_limit = _posted(pipeline, [item("100")])
    set_limit(pipeline.engine, PAYER, "USD", 1_000_000 * UNITS, actor="tests")
    _move_funds(pipeline.engine)

    refused_by_payee = _posted(pipeline, [item("7"), item("8")])
    pipeline.put(refused_by_payee["bulkTransferId"], answer([], state="REJECTED"), source=PAYEE)
    error_of_payee = _posted(pipeline, [item("9")])
    error = {"errorInformation": {"errorCode": "5100", "errorDescription": "Payee rejection"}}
    pipeline.put_error(error_of_payee["bulkTransferId"], error, source=PAYEE)
    pipeline.run()

    singles_ended = _ended_singles(pipeline)
    expired_reserved = _posted(pipeline, [item("11"), item("12")])
    pipeline.held.add(TOPIC_TRANSFER_POSITION)
    expired_unreserved = _posted(pipeline, [item("13")])
    expire(pipeline.engine)
    pipeline.held.clear()
    end_by_time(pipeline)

    # A batch that gives back as much as it reserves leaves the account where it was.
    given_back = [item("50")]
    first = _posted(pipeline, given_back)
    pipeline.held.add(TOPIC_TRANSFER_POSITION)
    pipeline.put(first["bulkTransferId"], answer([refused(given_back[0])]), source=PAYEE)
    pipeline.run()
    accepted = _posted(pipeline, [item("50")])
    pipeline.held.clear()
    pipeline.run()
    single_open = _single(pipeline, "17")
    pipeline.held.add(TOPIC_TRANSFER_POSITION)
    pending = _posted(pipeline, [item("15"), item("1", currency="EUR")])
    return AllOutcomes(
        mixed,
        refused_bulk,
        over_limit,
        refused_by_payee,
        error_of_payee,
        expired_reserved,
        expired_unreserved,
        accepted,
        pending,
        single_open,
        singles_ended,
    )


def _ended_singles(pipeline: Pipeline) -> tuple[Body, ...]:
    """Committed, committed after RESERVED, refused, wrongly fulfilled after RESERVED, invalid; the last expires later."""
    answers: list[Callable[[Body], Body]] = [
        singles.fulfilled,
        lambda body: singles.fulfilled(body, "RESERVED"),
        lambda body: singles.failed(),
        lambda body: singles.fulfilled(body, "RESERVED") | {"fulfilment": "A" * 43},
    ]
    ended = [_single(pipeline, "21", say) for say in answers]
    ended.append(_single(pipeline, "22", currency="EUR"))
    ended.append(_single(pipeline, "23"))
    return tuple(ended)


def _single(pipeline: Pipeline, amount: str, say: Callable[[Body], Body] | None = None, **extra: Any) -> Body:
    body = singles.transfer(amount, now_ms=pipeline.now(), **extra)
    singles.post(pipeline, body)
    pipeline.run()
    if say is not None:
        singles.put(pipeline, body["transferId"], say(body))
        pipeline.run()
    return body


def _posted(pipeline: Pipeline, items: list[Body]) -> Body:
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    return body


def _move_funds(engine: Engine) -> None:
    [account] = [
        one.account_id for one in read_participant(engine, PAYER).accounts if one.ledger_account_type == "SETTLEMENT"
    ]
    for end in (funds_out_commit, funds_out_abort):
        order = FundsOrder(uuid4(), 3 * UNITS, "USD", reason="tests")
        funds_out_reserve(engine, PAYER, account, order, actor="tests")
        end(engine, PAYER, account, order.transfer_id, actor="tests")
    funds_in(engine, PAYER, account, FundsOrder(uuid4(), 5 * UNITS, "USD", reason="tests"), actor="tests")
