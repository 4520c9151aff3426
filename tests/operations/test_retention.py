"""Retention removes what is over its time, and nothing that is unfinished, undelivered, unread or named."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.audit import read_audit
from domain.combinations import BULK_PREPARE, TOPIC_BULK_PREPARE, TOPIC_NOTIFICATION
from domain.identifiers import id_bytes
from object_store.content import put_content
from object_store.folder import FolderObjectStore
from operations.retention import RetentionReport, RetentionRuns, RetentionTimes, run_retention
from operations.verification import verify_database
from schemas.codec import codec
from schemas.messages import BulkPrepare, DeadLetter
from schemas.topics import dead_letter_topic
from stream.interface import NewRecord
from tests.bulks import PAYEE, PAYER, answer, committed
from tests.operations.all_outcomes import AllOutcomes, make_all_outcomes, make_pipeline
from tests.pipeline import Pipeline

DAY_S = 24 * 60 * 60
TIMES = RetentionTimes(
    callbacks_kept_days=90, objects_kept_days=90, orphans_kept_days=14, dead_letters_kept_days=90
)  # fmt: skip

_DATED = {
    "bulk_transfer_state_change": ("created_date",),
    "bulk_transfer_result": ("created_date",),
    "transfer_state_change": ("created_date",),
    "participant_position_change": ("created_date",),
    "funds_transfer_state_change": ("created_date",),
    "admin_audit": ("created_date",),
    "delivery": ("created_date", "finished_date", "renewed_date"),
    "delivery_attempt": ("created_date",),
    "handler_progress": ("changed_date",),
    "stream_record": ("appended_date",),
}


@pytest.fixture
def pipeline(engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    # No power is cut here; syncing some hundred files is what these tests would wait for.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return make_pipeline(engine, object_store)


@pytest.fixture
def outcomes(pipeline: Pipeline) -> AllOutcomes:
    """All outcomes, with every callback delivered."""
    outcomes = make_all_outcomes(pipeline)
    deliver_all(pipeline.engine)
    return outcomes


def deliver_all(engine: Engine) -> None:
    with engine.begin() as tx:
        tx.execute(text("UPDATE delivery SET state = 'DELIVERED', finished_date = now(), attempts = 1"))
        tx.execute(text("INSERT INTO delivery_attempt SELECT delivery_id, 1, 'http://x', 200, NULL, 3 FROM delivery ON CONFLICT DO NOTHING"))  # fmt: skip # noqa: E501 - one statement


def make_old(pipeline: Pipeline, days: int) -> None:
    """As if everything that is there had happened so many days earlier."""
    make_rows_old(pipeline.engine, days)
    for path in folder_of(pipeline).rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * DAY_S
            os.utime(path, (then, then))


def make_rows_old(engine: Engine, days: int) -> None:
    with engine.begin() as tx:
        for table, columns in _DATED.items():
            moves = ", ".join(f"{column} = {column} - interval '{days} days'" for column in columns)
            tx.execute(text(f"UPDATE {table} SET {moves}"))


def folder_of(pipeline: Pipeline) -> Path:
    folder: Any = pipeline.store
    path: Path = folder._folder
    return path


def retain(pipeline: Pipeline, times: RetentionTimes = TIMES, *, is_dry_run: bool = False) -> RetentionReport:
    return run_retention(
        pipeline.engine, pipeline.store, pipeline.stream, times, actor="tests", is_dry_run=is_dry_run
    )  # fmt: skip


def counted(report: RetentionReport) -> dict[str, int]:
    return {"callbacks": report.callbacks, "results": report.results, **report.objects}


def count(engine: Engine, table: str, where: str = "true") -> int:
    with engine.connect() as tx:
        return int(tx.execute(text(f"SELECT count(*) FROM {table} WHERE {where}")).scalar_one())


def named(engine: Engine) -> set[str]:
    """Every object that a row names."""
    with engine.connect() as tx:
        return set(
            tx.execute(
                text(
                    "SELECT content FROM delivery UNION SELECT list_content FROM bulk_transfer_result"
                    " UNION SELECT callback_content FROM bulk_transfer_result UNION SELECT content FROM bulk_transfer_error"
                )
            ).scalars()
        ) - {None}


def contents_named(pipeline: Pipeline) -> set[str]:
    return {key for key in named(pipeline.engine) if key.startswith("content/")}


def everything(pipeline: Pipeline) -> set[str]:
    """Every object that is kept."""
    return {*pipeline.store.keys("content/"), *pipeline.store.keys("requests/")}


def single_requests(pipeline: Pipeline, body: dict[str, Any]) -> list[str]:
    return pipeline.store.keys(f"requests/{body['transferId']}/")


def requests_of(pipeline: Pipeline, body: dict[str, Any]) -> list[str]:
    return pipeline.store.keys(f"requests/{body['bulkTransferId']}/")


def test_what_is_young_stays(pipeline: Pipeline, outcomes: AllOutcomes) -> None:
    make_old(pipeline, 80)
    before = pipeline.store.keys("requests/"), pipeline.store.keys("content/"), count(pipeline.engine, "delivery")
    report = retain(pipeline)
    assert counted(report) == {"callbacks": 0, "results": 0, "requests": 0, "orphans": 0, "contents": 0}
    assert before == (
        pipeline.store.keys("requests/"), pipeline.store.keys("content/"), count(pipeline.engine, "delivery")
    )  # fmt: skip


def test_what_is_old_goes_and_what_has_not_ended_stays(pipeline: Pipeline, outcomes: AllOutcomes) -> None:
    make_old(pipeline, 100)
    open_bulks = [outcomes.accepted, outcomes.pending]
    requests_before = [requests_of(pipeline, body) for body in open_bulks]
    planned = retain(pipeline, is_dry_run=True)
    report = retain(pipeline)
    assert counted(report) == counted(planned), "a dry run tells what is going to happen"
    assert report.callbacks > 8
    assert report.results == 8  # All that ended; the one that gave back as much as another reserved among them.
    assert all(requests_of(pipeline, body) == [] for body in outcomes.ended)
    assert [requests_of(pipeline, body) for body in open_bulks] == requests_before != [[], []]
    assert all(single_requests(pipeline, body) == [] for body in outcomes.singles_ended)
    assert len(single_requests(pipeline, outcomes.single_open)) == 1
    # The forwards of the bulk and the transfer that wait for their payee, and nothing else, are left.
    assert count(pipeline.engine, "delivery") == count(pipeline.engine, "delivery", "kind = 'FORWARD'") == 2
    assert contents_named(pipeline) == set(pipeline.store.keys("content/"))
    assert counted(retain(pipeline)) == {"callbacks": 0, "results": 0, "requests": 0, "orphans": 0, "contents": 0}
    # What is proven of the rows that stay holds as before.
    assert verify_database(pipeline.engine, settled_ms=0).findings == []


def test_an_unfinished_bulk_goes_on_after_retention(pipeline: Pipeline, outcomes: AllOutcomes) -> None:
    make_old(pipeline, 100)
    retain(pipeline)
    body = outcomes.accepted
    pipeline.put(body["bulkTransferId"], answer([committed(body["individualTransfers"][0])]), source=PAYEE)
    pipeline.held.clear()
    pipeline.run()
    told = [one for one in pipeline.notifications(PAYER) if one.bulk_transfer_id == id_bytes(body["bulkTransferId"])]
    assert pipeline.body(told[-1])["bulkTransferState"] == "COMPLETED"
    assert len(pipeline.body(told[-1])["individualTransferResults"]) == 1


def test_a_bulk_stays_readable_and_its_resends_are_answered(pipeline: Pipeline, outcomes: AllOutcomes) -> None:
    """D20's other side: objects go, the state stays; before its time a GET shows the whole list."""
    body = outcomes.mixed
    make_old(pipeline, 80)
    retain(pipeline)
    assert len(asked(pipeline, body, PAYER)["individualTransferResults"]) == 5
    assert asked(pipeline, outcomes.refused, PAYER) == {"bulkTransferState": "REJECTED"}
    make_old(pipeline, 20)
    retain(pipeline)
    assert count(pipeline.engine, "bulk_transfer_result", "list_content IS NOT NULL") == 0
    for fsp in (PAYER, PAYEE):
        assert asked(pipeline, body, fsp) == {"bulkTransferState": "COMPLETED"}
    for resent in (body, outcomes.refused, outcomes.error_of_payee):
        request_id = pipeline.post(resent, source=PAYER)
        pipeline.run()
        [told] = [one for one in pipeline.notifications(PAYER) if one.request_id == request_id]
        assert told.callback == "PUT"
        state = "COMPLETED" if resent is body else "REJECTED"
        assert pipeline.body(told) == {"bulkTransferState": state}
    error = {"errorInformation": {"errorCode": "5100", "errorDescription": "Payee rejection"}}
    request_id = pipeline.put_error(outcomes.error_of_payee["bulkTransferId"], error, source=PAYEE)
    pipeline.run()
    [told] = [one for one in pipeline.notifications(PAYEE) if one.request_id == request_id]
    assert pipeline.body(told) == {"bulkTransferState": "REJECTED"}


def asked(pipeline: Pipeline, body: dict[str, Any], fsp: str) -> Any:
    """What a GET is answered with."""
    request_id = pipeline.get(body["bulkTransferId"], source=fsp)
    pipeline.run()
    [told] = [one for one in pipeline.notifications(fsp) if one.request_id == request_id]
    assert told.callback == "PUT"
    return pipeline.body(told)


@pytest.mark.parametrize("state", ["WAITING", "DEAD"])
def test_an_undelivered_outcome_and_its_body_stay_for_ever(  # D19
    pipeline: Pipeline, outcomes: AllOutcomes, state: str
) -> None:
    with pipeline.engine.begin() as tx:
        finished = "NULL" if state == "WAITING" else "finished_date"
        tx.execute(text(f"UPDATE delivery SET state = '{state}', finished_date = {finished} WHERE kind = 'FINAL'"))
        waiting = set(tx.execute(text("SELECT content FROM delivery WHERE kind = 'FINAL'")).scalars())
    make_old(pipeline, 1_000)
    retain(pipeline)
    assert count(pipeline.engine, "delivery", "kind = 'FINAL'") == count(pipeline.engine, "delivery") - 2 > 8
    assert waiting <= everything(pipeline)
    assert count(pipeline.engine, "delivery_attempt", "delivery_id NOT IN (SELECT delivery_id FROM delivery)") == 0


def test_orphans_go_after_their_time_but_not_while_they_are_unread(pipeline: Pipeline) -> None:  # D20
    from tests.bulks import bulk, item

    orphan = bulk([item()], now_ms=pipeline.now())
    pipeline.post(orphan, source=PAYER)
    pipeline.queues[TOPIC_BULK_PREPARE].clear()
    unread = bulk([item()], now_ms=pipeline.now())
    request_id = pipeline.post(unread, source=PAYER)
    message = BulkPrepare(
        BULK_PREPARE.type,
        BULK_PREPARE.action,
        BULK_PREPARE.status,
        id_bytes(unread["bulkTransferId"]),
        request_id,
        PAYER,
        pipeline.now(),
        1,
    )
    append(pipeline, NewRecord(TOPIC_BULK_PREPARE, message.bulk_transfer_id, codec(BulkPrepare).encode([message])))
    make_old(pipeline, 13)
    assert counted(retain(pipeline))["orphans"] == 0
    make_old(pipeline, 2)
    report = retain(pipeline)
    assert report.objects["orphans"] == 0
    assert report.held_back_by == f"what bulk-prepare has not read yet on {TOPIC_BULK_PREPARE}"
    with pipeline.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO handler_progress (handler, topic, partition, next_offset)"
                " SELECT 'bulk-prepare', topic, partition, end_offset FROM stream_partition WHERE topic = :topic"
            ),
            {"topic": TOPIC_BULK_PREPARE},
        )
    assert retain(pipeline).objects["orphans"] == 2
    assert requests_of(pipeline, orphan) == requests_of(pipeline, unread) == []


def test_outputs_that_may_still_have_to_be_sent_hold_everything_back(pipeline: Pipeline, outcomes: AllOutcomes) -> None:
    with pipeline.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO handler_progress (handler, topic, partition, next_offset, outputs)"
                " VALUES ('bulk-get', 'topic-bulk-get', 0, 1, 'outputs')"
            )
        )
    make_old(pipeline, 100)
    report = retain(pipeline)
    assert counted(report) == {"callbacks": 0, "results": 0, "requests": 0, "orphans": 0, "contents": 0}
    assert report.held_back_by == "outputs that bulk-get has stored and may have to send again"


@pytest.mark.parametrize("question", ["GET", "resend"])
def test_an_answer_that_is_under_way_keeps_its_body(pipeline: Pipeline, outcomes: AllOutcomes, question: str) -> None:
    """The race: a handler has named an old object in a message, and retention comes before the callback is written down."""
    make_old(pipeline, 100)
    pipeline.held.add(TOPIC_NOTIFICATION)
    body = outcomes.mixed
    ask = pipeline.get(body["bulkTransferId"], source=PAYER) if question == "GET" else pipeline.post(body, source=PAYER)
    pipeline.run()
    retain(pipeline)
    assert count(pipeline.engine, "bulk_transfer_result", "list_content IS NOT NULL") == 0
    pipeline.held.clear()
    pipeline.run()
    [told] = [one for one in pipeline.notifications(PAYER) if one.request_id == ask]
    assert len(pipeline.body(told)["individualTransferResults"]) == 5
    retain(pipeline)
    assert named(pipeline.engine) <= everything(pipeline)


def test_a_kill_at_any_statement_is_mended_by_the_next_run(
    pipeline: Pipeline, outcomes: AllOutcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows first, then objects: at no moment does a row name an object that is gone (BULK-134)."""
    make_old(pipeline, 100)
    planned = counted(retain(pipeline, is_dry_run=True))
    delete = FolderObjectStore.delete_older
    deleted = 0

    class Killed(BaseException):
        pass

    def die_sometimes(store: FolderObjectStore, key: str, before_ms: int) -> bool:
        nonlocal deleted
        deleted += delete(store, key, before_ms)
        if deleted % 3 == 0:
            raise Killed
        return True

    monkeypatch.setattr(FolderObjectStore, "delete_older", die_sometimes)
    kills = 0
    while True:
        try:
            report = retain(pipeline)
            break
        except Killed:
            kills += 1
            assert named(pipeline.engine) <= everything(pipeline)
            deleted += 1
    assert kills > 3
    assert counted(report)["callbacks"] == 0
    monkeypatch.undo()
    assert counted(retain(pipeline)) == dict.fromkeys(planned, 0)
    assert contents_named(pipeline) == set(pipeline.store.keys("content/"))


def test_content_that_several_rows_share_goes_with_the_last_of_them(pipeline: Pipeline, outcomes: AllOutcomes) -> None:
    """The same bytes are kept once: here the state that a refused bulk and a GET are told."""
    make_old(pipeline, 100)
    shared = put_content(pipeline.store, b'{"bulkTransferState":"REJECTED"}')
    request_id = pipeline.get(outcomes.refused["bulkTransferId"], source=PAYER)
    pipeline.run()
    make_old(pipeline, 50)
    retain(pipeline)
    assert pipeline.store.exists(shared), "the answer to the GET is younger, and has not been delivered"
    [told] = [one for one in pipeline.notifications(PAYER) if one.request_id == request_id]
    assert told.content == shared
    deliver_all(pipeline.engine)
    make_old(pipeline, 91)
    retain(pipeline)
    assert not pipeline.store.exists(shared)


def test_old_dead_letters_are_trimmed(pipeline: Pipeline) -> None:
    topic = dead_letter_topic(TOPIC_BULK_PREPARE)
    letter = DeadLetter("bulk-prepare", TOPIC_BULK_PREPARE, 0, 7, b"k", b"v", "tests", time.time_ns() // 1_000_000)
    for days in (60, 40):
        append(pipeline, NewRecord(topic, b"k", codec(DeadLetter).encode([letter])))
        make_old(pipeline, days)
    append(pipeline, NewRecord(topic, b"k", codec(DeadLetter).encode([letter])))
    assert retain(pipeline, is_dry_run=True).dead_letters == 1
    assert pipeline.stream.start_offsets(topic) == {0: 0}
    assert retain(pipeline).dead_letters == 1
    assert pipeline.stream.start_offsets(topic) == {0: 1}


def test_one_retention_at_a_time_and_an_audit_row_for_each(pipeline: Pipeline) -> None:
    with pipeline.engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(4201906)"))
        with pytest.raises(RetentionRuns):
            retain(pipeline)
        other.execute(text("SELECT pg_advisory_unlock(4201906)"))
    report = retain(pipeline)
    retain(pipeline, is_dry_run=True)
    with pipeline.engine.connect() as tx:
        acts = [act for act in read_audit(tx) if act.action == "retention"]
    [act] = acts
    assert act.actor == "tests"
    assert (act.after or {})["callbacksBefore"] == report.callbacks_before.isoformat()
    assert asdict(report)["held_back_by"] is None


def append(pipeline: Pipeline, record: NewRecord) -> None:
    producer = pipeline.stream.producer()
    producer.produce([record])
    producer.close()
