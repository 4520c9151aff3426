"""No reservation leaves a position above cap or cover as they stood under its lock, whatever operators do in between."""

import uuid
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from bulk_api_adapter.admin.funds import FundsOrder, funds_in, funds_out_abort, funds_out_commit, funds_out_reserve
from bulk_api_adapter.admin.limits import set_limit
from bulk_api_adapter.admin.participants import read_participant
from db.accounts import POSITION, SETTLEMENT
from domain.combinations import TOPIC_SINGLE_POSITION, TOPIC_TRANSFER_POSITION
from domain.money import UNITS, from_numeric
from schemas.fspiop.errors import Refusal
from tests import singles
from tests.bulks import PAYEE, answer, bulk, committed, item, provision, refused
from tests.flows.test_expiry import end_by_time, expire
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(900)

POSITION_TOPICS = (TOPIC_TRANSFER_POSITION, TOPIC_SINGLE_POSITION)
_numbers = count(1)

ACTIONS = st.one_of(
    st.tuples(st.just("bulk"), st.lists(st.integers(1, 40), min_size=1, max_size=6)),
    st.tuples(st.just("single"), st.integers(1, 40)),
    st.tuples(st.just("some moves"), st.integers(1, 5)),
    st.tuples(st.just("everything"), st.none()),
    st.tuples(st.just("cap"), st.integers(0, 120)),
    st.tuples(st.just("funds in"), st.integers(1, 60)),
    st.tuples(st.just("funds out"), st.sampled_from(["kept reserved", "committed", "aborted"])),
    st.tuples(st.just("answers"), st.integers(0, 2**16)),
)


class Payer:
    """An FSP of its own for each example, and a payee that answers it."""

    def __init__(self, pipeline: Pipeline, cap: int, funds: int) -> None:
        self.pipeline = pipeline
        self.name = f"payer{next(_numbers)}fsp"
        provision(pipeline.engine, fsps=(self.name, PAYEE))
        self.accounts = {
            one.ledger_account_type: one.account_id
            for one in read_participant(pipeline.engine, self.name).accounts
            if one.currency == "USD"
        }
        self.set_cap(cap)
        # Provisioned with 1,000; what is above `funds` goes out again.
        self.funds_out(1_000 - funds, "committed")
        self.bulks: list[dict[str, Any]] = []
        self.transfers: list[dict[str, Any]] = []
        self.answered: set[str] = set()

    def do(self, action: str, detail: Any) -> None:
        match action:
            case "bulk":
                items = [item(str(amount)) for amount in detail]
                self.bulks.append({**bulk(items, now_ms=self.pipeline.now()), "payerFsp": self.name})
                self.pipeline.post(self.bulks[-1], source=self.name)
                self.until_position()
            case "single":
                self.transfers.append(singles.transfer(str(detail), now_ms=self.pipeline.now(), payerFsp=self.name))
                singles.post(self.pipeline, self.transfers[-1], source=self.name)
                self.until_position()
            case "some moves":
                for topic in POSITION_TOPICS:
                    self.move(topic, detail)
                self.until_position()
            case "everything":
                self.run()
            case "cap":
                self.set_cap(detail)
            case "funds in":
                order = FundsOrder(uuid.uuid4(), detail * UNITS)
                funds_in(self.pipeline.engine, self.name, self.accounts[SETTLEMENT], order, actor="test")
            case "funds out":
                self.funds_out(30, detail)
            case "answers":
                self.answer(Random(detail))
                self.until_position()

    def set_cap(self, cap: int) -> None:
        set_limit(self.pipeline.engine, self.name, "USD", cap * UNITS, actor="test")

    def funds_out(self, amount: int, end: str) -> None:
        """Refused where the cover that is left would not carry the position."""
        engine, account, id_ = self.pipeline.engine, self.accounts[SETTLEMENT], uuid.uuid4()
        try:
            order = FundsOrder(id_, amount * UNITS)
            funds_out_reserve(engine, self.name, account, order, actor="test")
        except Refusal as refusal:
            if refusal.error.code != "4001":
                raise
            return
        if end != "kept reserved":
            finish = funds_out_commit if end == "committed" else funds_out_abort
            finish(engine, self.name, account, id_, actor="test")

    def answer(self, chance: Random) -> None:
        """The payee answers what it has heard of, some of it with an error."""
        with self.pipeline.engine.connect() as tx:
            forwards = text("SELECT CAST(entity_id AS text) FROM delivery WHERE kind = 'FORWARD'")
            heard = set(tx.execute(forwards).scalars()) - self.answered
        for body in self.bulks:
            id_ = body["bulkTransferId"]
            if id_ in heard:
                self.answered.add(id_)
                with self.pipeline.engine.connect() as tx:
                    reserved = set(map(str, tx.execute(_FORWARDED, {"id": id_}).scalars()))
                results = [
                    committed(one) if chance.random() < 0.6 else refused(one)
                    for one in body["individualTransfers"]
                    if one["transferId"] in reserved
                ]
                self.pipeline.put(id_, answer(results), source=PAYEE)
        for body in self.transfers:
            if body["transferId"] in heard:
                self.answered.add(body["transferId"])
                said = singles.fulfilled(body) if chance.random() < 0.6 else singles.failed()
                singles.put(self.pipeline, body["transferId"], said)

    def until_position(self) -> None:
        """Everything but what asks for a move of money."""
        self.pipeline.run(*[topic for topic in self.pipeline.queues if topic not in POSITION_TOPICS])

    def run(self) -> None:
        while any(self.pipeline.queues.values()):
            for topic in POSITION_TOPICS:
                self.move(topic, 1_000)
            self.until_position()

    def move(self, topic: str, items: int) -> None:
        """One batch of position, and what it did judged by cap and cover as nobody can have changed them since."""
        if not self.pipeline.queues[topic]:
            return
        before = self.reservations()
        self.pipeline.step(topic, items)
        new = {key: position for key, position in self.reservations().items() if key not in before}
        with self.pipeline.engine.connect() as tx:
            cap, cover = tx.execute(_LIMITS, {"position": self.accounts[POSITION], **self._settlement()}).one()
        for position in new.values():
            assert position <= min(from_numeric(cap), -from_numeric(cover))

    def _settlement(self) -> dict[str, int]:
        return {"settlement": self.accounts[SETTLEMENT]}

    def reservations(self) -> dict[int, int]:
        """Every transfer of this payer that was ever reserved, with the position after it."""
        with self.pipeline.engine.connect() as tx:
            rows = tx.execute(_RESERVATIONS, {"position": self.accounts[POSITION]}).all()
        return {key: from_numeric(position) for key, position in rows}

    def end(self) -> None:
        self.run()
        self.answer(Random(1))
        self.run()
        expire(self.pipeline.engine)
        for _ in range(3):
            end_by_time(self.pipeline)
            self.run()


_FORWARDED = text(
    "SELECT t.transfer_id FROM transfer t JOIN bulk_transfer_association a USING (transfer_key)"
    " JOIN bulk_transfer b ON t.transfer_key / 10000 = b.bulk_key"
    " WHERE b.bulk_transfer_id = CAST(:id AS uuid) AND a.bulk_processing_state = 'ACCEPTED'"
)
_LIMITS = text(
    "SELECT l.value, s.value FROM participant_limit l, participant_position s"
    " WHERE l.participant_currency_id = :position AND s.participant_currency_id = :settlement"
)
_RESERVATIONS = text(
    "SELECT s.transfer_key, s.position FROM transfer_state_change s JOIN transfer t USING (transfer_key)"
    " WHERE s.to_state = 'RESERVED' AND t.payer_participant_currency_id = :position"
)
_ENDS = text(
    "SELECT t.amount, s.to_state FROM transfer t JOIN transfer_state_change s USING (transfer_key)"
    " WHERE t.payer_participant_currency_id = :position AND NOT EXISTS (SELECT FROM transfer_state_change n"
    "   WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)"
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cap=st.integers(0, 120), funds=st.integers(1, 120), actions=st.lists(ACTIONS, min_size=4, max_size=14))
def test_random_batches_while_limits_are_lowered_and_funds_move(
    pipeline: Pipeline, cap: int, funds: int, actions: list[tuple[str, Any]]
) -> None:
    """X-35, D1, BULK-121, BULK-122, BULK-132: bulks and single transfers share one position; in the end it is zero-sum."""
    payer = Payer(pipeline, cap, funds)
    for action, detail in actions:
        payer.do(action, detail)
    payer.end()
    with pipeline.engine.connect() as tx:
        ends = tx.execute(_ENDS, {"position": payer.accounts[POSITION]}).all()
        position = tx.execute(
            text("SELECT value FROM participant_position WHERE participant_currency_id = :account"),
            {"account": payer.accounts[POSITION]},
        ).scalar_one()
        total = tx.execute(
            text(
                "SELECT sum(value) FROM participant_position JOIN participant_currency USING (participant_currency_id)"
                " WHERE ledger_account_type = 'POSITION' AND currency_id = 'USD'"
            )
        ).scalar_one()
    final = {"COMMITTED", "ABORTED_ERROR", "ABORTED_REJECTED", "EXPIRED_RESERVED", "EXPIRED_PREPARED", "INVALID"}
    assert {state for _, state in ends} <= final
    committed_ = sum(from_numeric(amount) for amount, state in ends if state == "COMMITTED")
    assert from_numeric(position) == committed_, "what was reserved was committed or has gone back"
    assert from_numeric(total) == 0
