"""Redrive ends what a lost topic would have left open, and changes nothing where nothing was lost."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from domain.identifiers import id_bytes
from operations.redrive import UnknownIds
from operations.verification import verify_database
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item
from tests.flows.conftest import QUEUES
from tests.flows.expirations import end_its_time
from tests.flows.losing import Losing
from tests.flows.over_http import whole_database
from tests.flows.test_replays import Script, outcome, play
from tests.pipeline import Pipeline

Outcome = dict[str, Any]


@pytest.fixture
def expected(pipeline: Pipeline) -> Outcome:
    """What becomes of the script when nothing is lost."""
    script = Script(pipeline)
    play(script, twice=False)
    return _without_answers(outcome(script))


def _without_answers(found: Outcome) -> Outcome:
    """Answers to single requests are not what a bulk comes to: a GET that was lost is asked again."""
    return {
        name: (end, items, Counter({key: count for key, count in told.items() if key[1] != "ANSWER"}), finals)
        for name, (end, items, told, finals) in found.items()
    }


def _losing(pipeline: Pipeline, seed: int, batch_items: int = 1_000) -> Losing:
    parts = (pipeline.engine, pipeline.store, pipeline.stream)
    return Losing(*parts, order=Random(seed), batch_items=batch_items, transport=pipeline.transport)


def _play_and_lose(script: Script, pipeline: Losing) -> int:
    """The script, with all topics lost at two random moments of each of its parts; how many messages were lost."""
    lost = 0

    def run() -> None:
        nonlocal lost
        for _ in range(2):
            pipeline.some_steps(12)
            lost += pipeline.lose()
            pipeline.redrive_and_run()

    script.post(script.bulks)
    run()
    script.post(script.late)
    run()
    while script.answer():
        run()
    end_its_time(script.pipeline.engine, script.bulks["silent"]["bulkTransferId"])
    for _ in range(3):
        pipeline.tick()
        run()
    return lost


@pytest.mark.parametrize("parts", [QUEUES], indirect=True)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_all_topics_lost_at_any_moment_end_as_if_nothing_was_lost(
    pipeline: Pipeline, expected: Outcome, seed: int
) -> None:
    """Every bulk that a handler had read finishes from its rows, the others from the object store; told once per side."""
    losing = _losing(pipeline, seed)
    script = Script(losing)
    lost = _play_and_lose(script, losing)
    assert lost > 0
    assert _without_answers(outcome(script)) == expected
    assert verify_database(pipeline.engine, settled_ms=0).findings == []
    # All is over: nothing is owed any more, and no request is unread but what says nothing.
    report = losing.redrive(from_objects=True)
    assert report.kinds == []
    assert {kind.request for kind in report.requests} <= {"PUT /bulkTransfers/{ID}"}


@pytest.mark.parametrize("parts", [QUEUES], indirect=True)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), batch_items=st.sampled_from([1, 7, 1_000]))
def test_redrive_at_any_moment_of_any_part_changes_nothing(
    pipeline: Pipeline, expected: Outcome, seed: int, batch_items: int
) -> None:
    """D3, BULK-134: what was not lost is dropped by state, however often and of whatever it is derived again."""
    losing = _losing(pipeline, seed, batch_items)
    script = Script(losing)

    def run() -> None:
        for _ in range(3):
            losing.some_steps(8)
            known = [id_bytes(one) for one in _known_bulks(losing)]
            some = losing.order.sample(known, losing.order.randint(0, len(known)))
            for _ in range(losing.order.randint(1, 2)):
                losing.redrive(ids=some, from_objects=losing.order.random() < 0.5)
        losing.run()

    script.post(script.bulks)
    run()
    script.post(script.late)
    run()
    while script.answer():
        run()
    end_its_time(script.pipeline.engine, script.bulks["silent"]["bulkTransferId"])
    for _ in range(3):
        losing.tick()
        run()
    assert _without_answers(outcome(script)) == expected
    before = whole_database(pipeline.engine)
    losing.redrive()
    losing.run()
    after = whole_database(pipeline.engine)
    assert {name for name in after if after[name] != before[name]} == {"admin_audit"}


def _known_bulks(pipeline: Pipeline) -> list[str]:
    with pipeline.engine.connect() as tx:
        return [str(one) for one in tx.execute(text("SELECT bulk_transfer_id FROM bulk_transfer")).scalars()]


@pytest.mark.parametrize("seed", range(4))
def test_single_transfers_of_every_end_survive_the_loss_of_all_topics(pipeline: Pipeline, seed: int) -> None:
    """COMMITTED, RESERVED and PATCH, the payee's error, a wrong fulfilment, refused, and expired: all told, each once."""
    losing = _losing(pipeline, seed)
    now = losing.now()
    bodies = {
        name: singles.transfer("999999999" if name == "refused" else "10", now_ms=now)
        for name in ("commit", "reserve", "error", "wrong", "refused", "expired")
    }
    said = {
        "commit": singles.fulfilled(bodies["commit"]),
        "reserve": singles.fulfilled(bodies["reserve"], "RESERVED"),
        "error": singles.failed(),
        "wrong": {"transferState": "RESERVED", "fulfilment": singles.fulfilled(bodies["commit"])["fulfilment"]},
    }

    def lose_on_the_way() -> None:
        for _ in range(2):
            losing.some_steps(6)
            losing.lose()
            losing.redrive_and_run()

    for body in bodies.values():
        singles.post(losing, body)
    lose_on_the_way()
    for name, body in said.items():
        singles.put(losing, bodies[name]["transferId"], body)
    lose_on_the_way()
    with losing.engine.begin() as tx:
        past = "now() - interval '1 second'"
        tx.execute(text(f"UPDATE open_expiration SET due_date = {past}"))
    losing.tick()
    lose_on_the_way()

    ends = {name: singles.states(losing, body["transferId"])[-1] for name, body in bodies.items()}
    assert ends == {
        "commit": "COMMITTED",
        "reserve": "COMMITTED",
        "error": "ABORTED_ERROR",
        "wrong": "ABORTED_ERROR",
        "refused": "ABORTED_REJECTED",
        "expired": "EXPIRED_RESERVED",
    }
    told = {
        name: [[one.callback for one in singles.told(losing, fsp, body["transferId"])] for fsp in (PAYER, PAYEE)]
        for name, body in bodies.items()
    }
    assert told == {
        "commit": [["PUT"], ["POST"]],
        "reserve": [["PUT"], ["POST", "PATCH"]],
        "error": [["PUT_ERROR"], ["POST"]],
        "wrong": [["PUT_ERROR"], ["POST", "PATCH"]],
        "refused": [["PUT_ERROR"], []],
        "expired": [["PUT_ERROR"], ["POST", "PUT_ERROR"]],
    }
    assert verify_database(losing.engine, settled_ms=0).findings == []
    assert losing.redrive(from_objects=True).messages == 0


@pytest.mark.parametrize("parts", [QUEUES], indirect=True)
def test_a_dry_run_says_what_is_owed_and_publishes_nothing(pipeline: Pipeline) -> None:
    losing = _losing(pipeline, 0)
    body = bulk([item(), item()], now_ms=losing.now())
    losing.post(body, source=PAYER)
    losing.run("topic-bulk-prepare")
    losing.lose()
    before = whole_database(pipeline.engine)
    report = losing.redrive(is_dry_run=True)
    [kind] = report.kinds
    assert (kind.topic, kind.messages, kind.entities) == ("topic-transfer-prepare", 2, 1)
    assert kind.first == [body["bulkTransferId"]]
    assert whole_database(pipeline.engine) == before
    assert not any(losing.queues.values())
    # An accepted bulk whose payee was not asked: the request is counted, and no content is kept for it.
    losing.redrive()
    losing.run("topic-transfer-prepare", "topic-transfer-position", "topic-bulk-processing")
    losing.lose()
    [forward] = losing.redrive(is_dry_run=True).kinds
    assert (forward.topic, forward.messages) == ("topic-notification-event", 1)
    # Once it was asked, it is the payee's turn.
    losing.redrive()
    losing.run()
    report = losing.redrive(is_dry_run=True)
    assert (report.kinds, report.waiting_for_payee, report.bulks) == ([], 2, 1)


def test_an_end_that_nobody_was_told_is_told(pipeline: Pipeline) -> None:
    """BULK-116: the payer of every bulk, by PUT or by PUT /error, and the payee that was asked; each once."""
    losing = _losing(pipeline, 0)
    now = losing.now()
    good, none = bulk([item()], now_ms=now), bulk([item("999999999")], now_ms=now)
    refused_as_a_whole = {**bulk([item()], now_ms=now), "payeeFsp": "ghostfsp"}
    failed_by_payee = bulk([item()], now_ms=now)
    for body in (good, none, refused_as_a_whole, failed_by_payee):
        losing.post(body, source=PAYER)
    losing.held.add("topic-notification-event")
    losing.run()
    losing.lose()
    # Only the two accepted ones are asked; the ends of the other two were lost.
    losing.held.clear()
    losing.redrive()
    losing.run()
    losing.put(good["bulkTransferId"], answer([committed(one) for one in good["individualTransfers"]]), source=PAYEE)
    losing.put_error(failed_by_payee["bulkTransferId"], singles.failed(), source=PAYEE)
    losing.held.add("topic-notification-event")
    losing.run()
    assert losing.lose() == 4
    losing.held.clear()
    ids = [id_bytes(body["bulkTransferId"]) for body in (good, failed_by_payee)]
    assert losing.redrive(ids=ids[:1], is_dry_run=True).messages == 2
    losing.redrive(ids=ids)
    losing.redrive()
    losing.run()
    with losing.engine.connect() as tx:
        rows = tx.execute(text("SELECT CAST(entity_id AS text), fsp, kind, callback FROM delivery")).all()
    assert Counter(tuple(row) for row in rows) == Counter(
        {
            (good["bulkTransferId"], PAYEE, "FORWARD", "POST"): 1,
            (good["bulkTransferId"], PAYER, "FINAL", "PUT"): 1,
            (good["bulkTransferId"], PAYEE, "FINAL", "PUT"): 1,
            (none["bulkTransferId"], PAYER, "FINAL", "PUT"): 1,
            (refused_as_a_whole["bulkTransferId"], PAYER, "FINAL", "PUT_ERROR"): 1,
            (failed_by_payee["bulkTransferId"], PAYEE, "FORWARD", "POST"): 1,
            (failed_by_payee["bulkTransferId"], PAYER, "FINAL", "PUT_ERROR"): 1,
            (failed_by_payee["bulkTransferId"], PAYEE, "FINAL", "PUT"): 1,
        }
    )


def test_an_answer_waits_until_its_bulk_has_been_worked_on(pipeline: Pipeline) -> None:
    """It would be refused with 3210 for ever if it overtook the POST that it answers."""
    losing = _losing(pipeline, 0)
    items = [item()]
    body = bulk(items, now_ms=losing.now())
    losing.post(body, source=PAYER)
    losing.put(body["bulkTransferId"], answer([committed(items[0])]), source=PAYEE)
    assert losing.lose() == 2
    report = losing.redrive(from_objects=True)
    assert {kind.request: (kind.published, kind.later) for kind in report.requests} == {
        "POST /bulkTransfers": (1, 0),
        "PUT /bulkTransfers/{ID}": (0, 1),
    }
    losing.run()
    losing.redrive_and_run()
    assert outcome_of(losing, body["bulkTransferId"]) == "COMPLETED"


@pytest.mark.parametrize("parts", [QUEUES], indirect=True)
def test_ids_that_nothing_has_are_a_clear_mistake(pipeline: Pipeline) -> None:
    with pytest.raises(UnknownIds, match="no bulk or single transfer has the id 00000000-0000-0000-0000-000000000007"):
        _losing(pipeline, 0).redrive(ids=[bytes(15) + b"\x07"])


def outcome_of(pipeline: Pipeline, bulk_transfer_id: str) -> str:
    with pipeline.engine.connect() as tx:
        return str(
            tx.execute(
                text(
                    "SELECT s.to_state FROM bulk_transfer b JOIN bulk_transfer_state_change s USING (bulk_key)"
                    " WHERE b.bulk_transfer_id = CAST(:id AS uuid) AND NOT EXISTS (SELECT FROM"
                    "   bulk_transfer_state_change n WHERE n.bulk_key = s.bulk_key AND n.from_state = s.to_state)"
                ),
                {"id": bulk_transfer_id},
            ).scalar_one()
        )
