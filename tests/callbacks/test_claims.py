"""Claiming, recording and sending again: what the statements of db/deliveries.py allow, and what they cost."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from db.deliveries import (
    AttemptOutcome,
    ClaimedDelivery,
    NewDelivery,
    claim_deliveries,
    insert_deliveries,
    list_attempts,
    list_deliveries,
    record_outcomes,
    send_again,
)
from db.participants import set_endpoint
from tests.callbacks.callback_rows import (
    add_participant,
    answer_to_get,
    claim,
    count_statements,
    final,
    forward,
    rows,
    write,
)


def outcome(claimed: ClaimedDelivery, state: str, **values: Any) -> AttemptOutcome:
    facts = {"url": "http://fsp/x", "status": None, "error": None, "duration_ms": 3, "delay_ms": None} | values
    return AttemptOutcome(delivery_id=claimed.delivery_id, attempt=claimed.attempt, state=state, **facts)


def record(engine: Engine, *outcomes: AttemptOutcome) -> None:
    with engine.begin() as tx:
        record_outcomes(tx, outcomes)


def one_row(engine: Engine) -> dict[str, Any]:
    (row,) = rows(engine, "SELECT *, next_attempt_date - now() AS wait FROM delivery")
    return row


def in_milliseconds(delta: timedelta) -> int:
    return int((datetime.now(UTC) + delta).timestamp() * 1000)


def test_only_the_first_waiting_callback_of_a_bulk_may_be_claimed_per_fsp(engine: Engine) -> None:
    # Architecture §6: order per FSP and bulk.
    add_participant(engine, "payeefsp")
    add_participant(engine, "payerfsp")
    bulk, other = uuid4(), uuid4()
    write(
        engine,
        forward("payeefsp", "c/forward", bulk),
        final("payeefsp", "c/final", bulk),
        answer_to_get("payeefsp", "c/answer", bulk),
        final("payerfsp", "c/payer", bulk),
        final("payeefsp", "c/other", other),
    )
    taken = {one.content: one for one in claim(engine).deliveries}
    assert set(taken) == {"c/forward", "c/payer", "c/other"}
    assert claim(engine).deliveries == []
    record(engine, outcome(taken["c/forward"], "WAITING", delay_ms=60_000))
    assert claim(engine).deliveries == [], "what failed stands before the rest of its bulk until its time comes"
    record(engine, outcome(taken["c/forward"], "DELIVERED", status=202))
    (second,) = claim(engine).deliveries
    assert second.content == "c/final"
    record(engine, outcome(second, "DEAD", status=500))
    assert [one.content for one in claim(engine).deliveries] == ["c/answer"]


def test_a_claim_says_what_an_attempt_needs(engine: Engine) -> None:
    add_participant(engine, "payerfsp", "http://payer:1")
    add_participant(engine, "homeless")
    write(engine, final("payerfsp", "c/1"), final("homeless", "c/2"))
    housed, homeless = sorted(claim(engine).deliveries, key=lambda one: one.content)
    assert housed.endpoint == "http://payer:1/bulkTransfers/{{id}}"
    assert homeless.endpoint is None
    assert (housed.attempt, housed.attempts, housed.left_ms) == (1, 1, None)
    assert housed.headers is not None
    assert housed.headers["fspiop-destination"] == "payerfsp"
    assert 0 <= housed.age_ms < 60_000


def single(fsp: str, callback: str, content: str) -> NewDelivery:
    kind = "FORWARD" if callback == "POST" else "FINAL"
    return NewDelivery("transfers", uuid4(), fsp, kind, None, callback, content, {}, None)


def test_single_transfers_and_bulks_of_an_fsp_take_turns(engine: Engine) -> None:  # BULK-133
    add_participant(engine, "payerfsp")
    write(engine, *(final("payerfsp", f"bulk/{number}") for number in range(5)))
    with engine.begin() as tx:
        insert_deliveries(tx, [single("payerfsp", "PUT", f"single/{number}") for number in range(5)])
    # However long either queue is, the other is not kept out.
    first = sorted(one.content.split("/")[0] for one in claim(engine, per_fsp_max=4).deliveries)
    assert first == ["bulk", "bulk", "single", "single"]
    left = [one.content.split("/")[0] for one in claim(engine, per_fsp_max=4, payerfsp=3).deliveries]
    assert left == ["single"], "the one that is left comes to the single transfers"


def test_a_patch_goes_to_puts_address_where_it_has_none_of_its_own(engine: Engine) -> None:  # reference §11.8
    add_participant(engine, "payeefsp")
    with engine.begin() as tx:
        participant = tx.execute(text("SELECT participant_id FROM participant WHERE name = 'payeefsp'")).scalar_one()
        set_endpoint(tx, participant, "FSPIOP_CALLBACK_URL_TRANSFER_PUT", "http://put")
        insert_deliveries(tx, [single("payeefsp", "PATCH", "one")])
    assert [one.endpoint for one in claim(engine).deliveries] == ["http://put"]
    with engine.begin() as tx:
        set_endpoint(tx, participant, "FSPIOP_CALLBACK_URL_TRANSFER_PATCH", "http://patch")
        insert_deliveries(tx, [single("payeefsp", "PATCH", "two")])
    assert [one.endpoint for one in claim(engine).deliveries] == ["http://patch"]


def test_a_lease_keeps_others_away_and_ends(engine: Engine) -> None:
    # BULK-134: a deliverer that was killed is replaced when its leases have run out; its attempt counts.
    add_participant(engine, "payerfsp")
    write(engine, final("payerfsp"))
    (first,) = claim(engine, lease_ms=60_000).deliveries
    assert claim(engine).deliveries == []
    with engine.begin() as tx:
        tx.execute(text("UPDATE delivery SET lease_date = now() - interval '1 millisecond'"))
    (second,) = claim(engine).deliveries
    assert (first.attempt, second.attempt) == (1, 2)
    # The first one wakes up late. Its failure is history; the newest attempt decides.
    record(engine, outcome(first, "DEAD", error="late"))
    assert one_row(engine)["state"] == "WAITING"
    assert one_row(engine)["lease_date"] is not None
    # A late success is a success: the FSP has said so.
    record(engine, outcome(first, "DELIVERED", status=200))
    assert one_row(engine)["state"] == "DELIVERED"
    record(engine, outcome(second, "WAITING", delay_ms=1, error="too late to matter"))
    assert one_row(engine)["state"] == "DELIVERED"


def test_two_deliverers_never_claim_the_same_row(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    write(engine, *(final("payerfsp") for _ in range(30)))

    def take(tx: Connection) -> set[int]:
        claimed = claim_deliveries(tx, claims_max=10, per_fsp_max=10, in_flight={}, lease_ms=60_000)
        return {one.delivery_id for one in claimed.deliveries}

    with engine.begin() as first, engine.begin() as second:
        # Both transactions are open at once: the second one skips what the first has locked.
        one, two = take(first), take(second)
    assert len(one) == len(two) == 10
    assert not one & two


def test_an_fsp_gets_no_more_than_its_slots_and_others_come_first_when_it_has_many(engine: Engine) -> None:
    add_participant(engine, "busy")
    add_participant(engine, "quiet")
    write(engine, *(final("busy") for _ in range(20)), *(final("quiet") for _ in range(3)))
    taken = [one.fsp for one in claim(engine, claims_max=4, per_fsp_max=5, busy=3).deliveries]
    assert sorted(taken) == ["busy", "quiet", "quiet", "quiet"]
    assert [one.fsp for one in claim(engine, per_fsp_max=5, busy=4, quiet=3).deliveries] == ["busy"]
    assert claim(engine, per_fsp_max=5, busy=5).deliveries == []


def test_the_oldest_due_callbacks_of_an_fsp_come_first(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    messages = [final("payerfsp", f"c/{number}") for number in range(9)]
    for message in messages:
        write(engine, message)
    assert sorted(one.content for one in claim(engine, claims_max=4).deliveries) == ["c/0", "c/1", "c/2", "c/3"]


def test_a_post_past_its_expiration_dies_unsent_and_makes_way(engine: Engine) -> None:
    # Architecture §6: a POST to a payee is neither made nor tried again past the bulk's expiration.
    add_participant(engine, "payeefsp")
    bulk = uuid4()
    past = in_milliseconds(timedelta(seconds=-1))
    write(engine, forward("payeefsp", "c/forward", bulk, past), final("payeefsp", "c/final", bulk))
    first = claim(engine)
    assert first.deliveries == []
    (dead,) = rows(engine, "SELECT * FROM delivery WHERE kind = 'FORWARD'")
    assert first.expired == [dead["delivery_id"]]
    assert (dead["state"], dead["lease_date"]) == ("DEAD", None)
    assert dead["finished_date"] is not None
    with engine.connect() as connection:
        (attempt,) = list_attempts(connection, dead["delivery_id"])
        assert (attempt.url, attempt.status, attempt.error) == (None, None, "not sent: the transfer has expired")
    assert [one.content for one in claim(engine).deliveries] == ["c/final"]
    with engine.begin() as tx:
        assert send_again(tx, [dead["delivery_id"]]) == [], "nor is it sent again by operators"


def test_a_post_before_its_expiration_knows_how_long_it_has(engine: Engine) -> None:
    add_participant(engine, "payeefsp")
    write(engine, forward("payeefsp", not_after_ms=in_milliseconds(timedelta(seconds=60))))
    (claimed,) = claim(engine).deliveries
    assert claimed.left_ms is not None
    assert 50_000 < claimed.left_ms <= 60_000


def test_outcomes_of_many_attempts_are_one_statement_and_may_be_said_twice(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    write(engine, *(final("payerfsp") for _ in range(60)))
    claimed = claim(engine).deliveries
    states = ["DELIVERED", "WAITING", "DEAD"]
    outcomes = [
        outcome(one, states[number % 3], status=200 + number, delay_ms=60_000 if number % 3 == 1 else None)
        for number, one in enumerate(claimed)
    ]
    assert len(count_statements(engine, lambda: record(engine, *outcomes))) == 1
    before = rows(engine, "SELECT * FROM delivery ORDER BY delivery_id")
    assert rows(engine, "SELECT state, count(*) AS n FROM delivery GROUP BY state ORDER BY state") == [
        {"state": "DEAD", "n": 20},
        {"state": "DELIVERED", "n": 20},
        {"state": "WAITING", "n": 20},
    ]
    record(engine, *outcomes)
    unchanged = [
        {**row, "next_attempt_date": None} for row in rows(engine, "SELECT * FROM delivery ORDER BY delivery_id")
    ]
    assert unchanged == [{**row, "next_attempt_date": None} for row in before]
    assert rows(engine, "SELECT count(*) AS n FROM delivery_attempt") == [{"n": 60}]


def test_a_dead_callback_sent_again_has_a_new_budget_and_keeps_its_history(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    write(engine, final("payerfsp"))
    for _ in range(3):
        (claimed,) = claim(engine).deliveries
        record(engine, outcome(claimed, "WAITING", error="refused", delay_ms=0))
    (claimed,) = claim(engine).deliveries
    assert (claimed.attempt, claimed.attempts) == (4, 4)
    with engine.begin() as tx:
        assert send_again(tx, [claimed.delivery_id]) == [], "what is not dead is not sent again"
    record(engine, outcome(claimed, "DEAD", status=500))
    with engine.begin() as tx:
        tx.execute(text("UPDATE delivery SET renewed_date = renewed_date - interval '1 day'"))
    with engine.begin() as tx:
        assert send_again(tx, [claimed.delivery_id, 999_999]) == [claimed.delivery_id]
    (renewed,) = claim(engine).deliveries
    assert (renewed.attempt, renewed.attempts) == (5, 1)
    assert renewed.age_ms < 3_600_000
    record(engine, outcome(renewed, "DELIVERED", status=200))
    with engine.connect() as connection:
        history = [(one.attempt, one.status, one.error) for one in list_attempts(connection, renewed.delivery_id)]
        (seen,) = list_deliveries(connection, rows_max=10)
    assert history == [(1, None, "refused"), (2, None, "refused"), (3, None, "refused"), (4, 500, None), (5, 200, None)]
    assert (seen.state, seen.attempts, seen.last_status, seen.last_error) == ("DELIVERED", 5, 200, None)


def test_an_attempt_that_failed_through_us_is_none_of_the_fsps_however_often_that_is_said(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    write(engine, final("payerfsp"))
    (claimed,) = claim(engine).deliveries
    record(engine, outcome(claimed, "WAITING", status=503, delay_ms=0))
    for attempt in range(2, 5):
        (claimed,) = claim(engine).deliveries
        assert (claimed.attempt, claimed.attempts) == (attempt, 2)
        # Said twice, as by a deliverer that did not hear the commit.
        for _ in range(2):
            record(engine, outcome(claimed, "WAITING", error="no body: no answer", delay_ms=0, is_ours=True))
    (claimed,) = claim(engine).deliveries
    assert (claimed.attempt, claimed.attempts) == (5, 2)


def test_operators_see_callbacks_by_state_fsp_and_bulk_newest_first(engine: Engine) -> None:
    add_participant(engine, "payerfsp")
    add_participant(engine, "payeefsp")
    bulk = uuid4()
    write(engine, forward("payeefsp", "c/1", bulk), final("payeefsp", "c/2", bulk), final("payerfsp", "c/3", bulk))
    write(engine, final("payerfsp", "c/4"))
    (fourth,) = [one for one in claim(engine).deliveries if one.content == "c/4"]
    record(engine, outcome(fourth, "DEAD", error="connection refused"))
    with engine.connect() as connection:

        def listed(**wanted: Any) -> list[str]:
            return [one.content for one in list_deliveries(connection, **({"rows_max": 10} | wanted))]

        assert listed() == ["c/4", "c/3", "c/2", "c/1"]
        assert listed(rows_max=2) == ["c/4", "c/3"]
        assert listed(entity_id=bulk) == ["c/3", "c/2", "c/1"]
        assert listed(fsp="payerfsp") == ["c/4", "c/3"]
        assert listed(state="DEAD") == ["c/4"]
        (dead,) = list_deliveries(connection, rows_max=1, state="DEAD")
    assert (dead.last_status, dead.last_error) == (None, "connection refused")


@pytest.fixture
def crowded(engine: Engine) -> Engine:
    """100,000 finished callbacks, and 20,000 of an FSP that is away and none of which is due."""
    add_participant(engine, "payerfsp")
    add_participant(engine, "away")
    insert = (
        "INSERT INTO delivery (entity_id, fsp, kind, callback, content, headers, state, next_attempt_date)"
        " SELECT gen_random_uuid(), :fsp, 'FINAL', 'PUT', 'c/1', '{}', :state, now() + CAST(:due AS interval)"
        " FROM generate_series(1, :rows)"
    )
    with engine.begin() as tx:
        # What is counted is what a claim reads, not what a vacuum does beside it.
        tx.execute(text("ALTER TABLE delivery SET (autovacuum_enabled = false)"))
        tx.execute(text(insert), {"fsp": "payerfsp", "state": "DELIVERED", "due": "-1 hour", "rows": 100_000})
        tx.execute(text(insert), {"fsp": "away", "state": "WAITING", "due": "1 hour", "rows": 20_000})
    write(engine, *(final("payerfsp") for _ in range(10)))
    return engine


def test_a_claim_touches_neither_what_is_finished_nor_what_is_not_due(crowded: Engine) -> None:
    def blocks_touched() -> int:
        (row,) = rows(
            crowded,
            "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit AS blocks"
            " FROM pg_statio_user_tables WHERE relname = 'delivery'",
        )
        return int(row["blocks"])

    def flush(tx: Any) -> None:
        tx.execute(text("SELECT pg_stat_force_next_flush()"))

    with crowded.begin() as tx:
        flush(tx)
    before = blocks_touched()
    with crowded.begin() as tx:
        flush(tx)
        taken = claim_deliveries(tx, claims_max=64, per_fsp_max=8, in_flight={}, lease_ms=60_000).deliveries
    assert len(taken) == 8
    # A walk over the finished rows would touch thousands of blocks, one over what is not due some hundreds.
    assert blocks_touched() - before < 200
