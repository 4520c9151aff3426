"""A transfer's whole story is told in time order, from rows, topics and callbacks, and ends with what it waits for."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from db.stories import read_item
from domain.combinations import (
    TOPIC_NOTIFICATION,
    TOPIC_SINGLE_POSITION,
    TOPIC_TRANSFER_POSITION,
    TOPIC_TRANSFER_PREPARE,
)
from domain.identifiers import id_bytes
from object_store.folder import FolderObjectStore
from operations.message_search import Search, search_messages
from operations.why import Why, why_bulk, why_item, why_transfer
from schemas.codec import codec
from schemas.messages import DeadLetter, TransferPrepare
from schemas.topics import dead_letter_topic
from stream.interface import NewRecord
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, refused
from tests.flows.test_expiry import end_by_time, expire
from tests.operations.all_outcomes import make_pipeline
from tests.operations.test_commands import Run, run
from tests.pipeline import Pipeline

__all__ = ["run"]


@pytest.fixture
def pipeline(engine: Engine, object_store: FolderObjectStore) -> Pipeline:
    return make_pipeline(engine, object_store)


def posted(pipeline: Pipeline, *items: dict[str, Any]) -> dict[str, Any]:
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    return body


def publish(pipeline: Pipeline) -> None:
    """Put on the topics what the pipeline has sent, frames of the same key together as a handler would."""
    producer = pipeline.stream.producer()
    for sent in pipeline.sent:
        value = codec(type(sent.message)).encode([sent.message])
        producer.produce([NewRecord(sent.topic, sent.key, value)])
    producer.close()
    pipeline.sent.clear()


def tell(pipeline: Pipeline, body: dict[str, Any], number: int | None = 0, **limits: Any) -> Why:
    with pipeline.engine.connect() as tx:
        bulk_id = UUID(body["bulkTransferId"])
        if number is None:
            why = why_bulk(tx, bulk_id)
        else:
            why = why_item(tx, bulk_id, UUID(body["individualTransfers"][number]["transferId"]))
    assert why is not None
    why.add_messages(search_messages(pipeline.stream, why.wanted, **limits))
    return why


def told(why: Why, about: str) -> list[str]:
    return [event.what for event in why.events if event.about == about]


def test_the_whole_story_of_a_committed_transfer(pipeline: Pipeline) -> None:
    others = [item("20"), item("30")]
    body = posted(pipeline, item("10"), *others)
    pipeline.put(body["bulkTransferId"], answer([committed(one) for one in body["individualTransfers"]]), source=PAYEE)
    pipeline.run()
    posted(pipeline, item("7"))
    publish(pipeline)
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE delivery SET state = 'DELIVERED', finished_date = now() WHERE kind <> 'FORWARD'"))
        tx.execute(
            text("INSERT INTO delivery_attempt SELECT delivery_id, 1, 'http://x/y', 200, NULL, 42 FROM delivery")
        )

    why = tell(pipeline, body)
    assert [event.at for event in why.events] == sorted(event.at for event in why.events)
    assert told(why, "bulk") == [
        "received by the edge",
        "- → RECEIVED",
        "RECEIVED → PENDING_PREPARE",
        "PENDING_PREPARE → ACCEPTED",
        "ACCEPTED → PROCESSING",
        "PROCESSING → COMPLETED",
    ]
    assert told(why, "item") == ["RECEIVED", "COMPLETED"]
    steps = [(event.what, event.reason, event.position) for event in why.events if event.about == "transfer"]
    assert steps == [
        ("- → RECEIVED_PREPARE", "bulk-prepare", None),
        ("RECEIVED_PREPARE → RESERVED", "bulk-prepare", "10"),
        ("RESERVED → RECEIVED_FULFIL", "bulk-commit", None),
        ("RECEIVED_FULFIL → COMMITTED", "bulk-commit", "-10"),
    ]
    # Of three items' messages, and of another bulk's on the same account, only this transfer's.
    messages = [event for event in why.events if event.about == "message"]
    of_transfer = [event.what for event in messages if event.message is not None and "transfer_id" in event.message]
    assert sorted(of_transfer) == sorted(
        [
            "prepare/bulk-prepare/success",
            "position/bulk-prepare/success",
            "bulk-processing/bulk-prepare/success",
            "bulk-fulfil/bulk-commit/success",
            "position/bulk-commit/success",
            "bulk-processing/bulk-commit/success",
        ]
    )
    assert sum(event.what.startswith("notification/") for event in messages) == 3
    for event in messages:
        assert event.place is not None
        topic, partition, offset = event.place.split("/")
        [record] = pipeline.stream.read(topic, int(partition), int(offset), 1)
        if topic != TOPIC_TRANSFER_POSITION:
            assert record.key == id_bytes(body["bulkTransferId"])
    attempts = [event for event in why.events if event.duration_ms is not None]
    assert [(event.url, event.status, event.duration_ms) for event in attempts] == 3 * [("http://x/y", 200, 42)]
    assert why.conclusion.startswith("It ended as COMPLETED at ")
    assert ": the money was committed. Its bulk ended as COMPLETED." in why.conclusion
    assert f"{PAYER} got its PUT at " in why.conclusion
    assert f"The POST to {PAYEE} waits after 0 attempts" in why.conclusion


def test_the_story_of_a_bulk_counts_its_items(pipeline: Pipeline) -> None:
    body = posted(pipeline, item("10"), item("20"), item("30", currency="EUR"))
    publish(pipeline)
    why = tell(pipeline, body, None)
    assert told(why, "transfer") == told(why, "item") == []
    of_items = [event.what for event in why.events if event.message is not None and "items" in event.message]
    assert of_items.count("prepare/bulk-prepare/success for 1 items") == 3
    assert why.conclusion.startswith(f"It waits for the answer of {PAYEE}, until ")
    assert why.wanted.keys == {id_bytes(body["bulkTransferId"])}


def test_what_a_transfer_waits_for_is_told_in_every_phase(pipeline: Pipeline) -> None:
    body = posted_but_held(pipeline, TOPIC_TRANSFER_PREPARE)
    assert "waits for prepare" in tell(pipeline, body).conclusion
    pipeline.held.add(TOPIC_TRANSFER_POSITION)
    release(pipeline, TOPIC_TRANSFER_PREPARE)
    assert "waits for position" in tell(pipeline, body).conclusion
    assert tell(pipeline, body, None).conclusion == (
        "It waits for 2 of its items to be reserved or refused (2 RECEIVED)."
    )  # fmt: skip
    pipeline.step(TOPIC_TRANSFER_POSITION, 1)
    pipeline.run()
    assert tell(pipeline, body, 0).conclusion == (
        "Its money is reserved; it waits for 1 other items of the bulk to be reserved or refused."
    )
    pipeline.held.add(TOPIC_NOTIFICATION)
    release(pipeline, TOPIC_TRANSFER_POSITION)
    assert "The POST to the payee was not written down yet." in tell(pipeline, body).conclusion
    release(pipeline, TOPIC_NOTIFICATION)
    assert f"The bulk waits for the answer of {PAYEE}" in tell(pipeline, body).conclusion
    pipeline.held.add(TOPIC_TRANSFER_POSITION)
    first, second = body["individualTransfers"]
    pipeline.put(body["bulkTransferId"], answer([committed(first), refused(second)]), source=PAYEE)
    pipeline.run()
    assert tell(pipeline, body, 0).conclusion == (
        "It waits for position, which has not worked on its message position/bulk-commit/success on "
        "topic-transfer-position yet."
    )
    assert "position/reject/success" in tell(pipeline, body, 1).conclusion
    assert tell(pipeline, body, None).conclusion.startswith("It waits for 2 of its items to be committed or given back")
    release(pipeline, TOPIC_TRANSFER_POSITION)
    assert ": 5104 Payee rejected. Its bulk ended as COMPLETED." in tell(pipeline, body, 1).conclusion


def test_how_a_transfer_ended_is_told_with_its_reason(pipeline: Pipeline) -> None:
    body = posted(pipeline, item("10"), item("30", currency="EUR"))
    invalid = tell(pipeline, body, 1)
    assert "It ended as RECEIVED_INVALID at " in invalid.conclusion
    assert "Its bulk is ACCEPTED: It waits for the answer" in invalid.conclusion
    expire(pipeline.engine)
    end_by_time(pipeline)
    expired = tell(pipeline, body, 0)
    assert "It ended as EXPIRED at " in expired.conclusion
    assert ": 3303 " in expired.conclusion
    refused_bulk = bulk([item()], now_ms=pipeline.now(), payeeFsp="nobody")
    pipeline.post(refused_bulk, source=PAYER)
    pipeline.run()
    assert ": 3203 " in tell(pipeline, refused_bulk, None).conclusion


def test_a_dead_letter_is_part_of_the_story(pipeline: Pipeline) -> None:
    body = posted_but_held(pipeline, TOPIC_TRANSFER_PREPARE)
    message = pipeline.queues[TOPIC_TRANSFER_PREPARE][0]
    letter = DeadLetter(
        "prepare", TOPIC_TRANSFER_PREPARE, 0, 3, message.bulk_transfer_id,
        codec(TransferPrepare).encode([message]), "a bug", pipeline.now(),
    )  # fmt: skip
    record = NewRecord(
        dead_letter_topic(TOPIC_TRANSFER_PREPARE), message.bulk_transfer_id, codec(DeadLetter).encode([letter])
    )  # fmt: skip
    producer = pipeline.stream.producer()
    producer.produce([record])
    producer.close()
    [event] = [event for event in tell(pipeline, body).events if event.about == "message"]
    assert (event.what, event.reason) == ("dead letter: prepare/bulk-prepare/success", "a bug")
    assert tell(pipeline, body, 1).events[-1].about != "message", "the other item's story has none"


def test_reading_topics_is_bounded_and_says_so(pipeline: Pipeline) -> None:
    body = posted(pipeline, item(), item())
    publish(pipeline)
    why = tell(pipeline, body, records_max=1)
    assert any(place.startswith(f"{TOPIC_TRANSFER_PREPARE}/") for place in why.unread)
    everything = tell(pipeline, body)
    assert everything.unread == []
    assert everything.records_read > why.records_read


def test_what_was_written_long_before_is_not_read(pipeline: Pipeline) -> None:
    posted(pipeline, item())
    publish(pipeline)
    with pipeline.engine.begin() as tx:
        tx.execute(text("UPDATE stream_record SET appended_date = appended_date - interval '1 day'"))
    body = posted(pipeline, item())
    publish(pipeline)
    why = tell(pipeline, body)
    assert why.records_read == len([event for event in why.events if event.about == "message"])


def test_a_transfer_is_found_by_its_own_id(pipeline: Pipeline) -> None:
    body = posted(pipeline, item())
    [one] = body["individualTransfers"]
    with pipeline.engine.connect() as tx:
        why = why_transfer(tx, UUID(one["transferId"]))
        assert why is not None
        assert why.transfer == read_item(tx, UUID(body["bulkTransferId"]), UUID(one["transferId"]))
        assert why_transfer(tx, UUID(body["bulkTransferId"])) is None
    why.add_messages(Search([], 0, []))
    assert f"The bulk waits for the answer of {PAYEE}" in why.conclusion


def test_a_single_transfer_is_explained_by_its_id(pipeline: Pipeline) -> None:
    body = singles.transfer("12", now_ms=pipeline.now())
    singles.post(pipeline, body)
    pipeline.run()

    def ask() -> Why:
        with pipeline.engine.connect() as tx:
            why = why_transfer(tx, UUID(body["transferId"]))
        assert why is not None
        why.add_messages(search_messages(pipeline.stream, why.wanted))
        return why

    assert ask().conclusion.startswith(f"Its money is reserved; it waits for the answer of {PAYEE}, until ")
    pipeline.held.add(TOPIC_SINGLE_POSITION)
    singles.put(pipeline, body["transferId"], singles.fulfilled(body, "RESERVED"))
    pipeline.run()
    assert "waits for single-position, which has not worked on its message position/reserve/success" in ask().conclusion
    release(pipeline, TOPIC_SINGLE_POSITION)
    publish(pipeline)
    why = ask()
    assert why.bulk is None
    assert told(why, "transfer") == [
        "received by the edge",
        "- → RECEIVED_PREPARE",
        "RECEIVED_PREPARE → RESERVED",
        "RESERVED → RECEIVED_FULFIL",
        "RECEIVED_FULFIL → COMMITTED",
    ]
    assert told(why, "message").count("position/prepare/success") == 1
    assert [what for what in told(why, "callback") if "PATCH FINAL" in what]
    assert why.conclusion.startswith("It ended as COMMITTED at ")


def test_the_commands(run: Run, pipeline: Pipeline, database_url: str) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    body = posted(pipeline, item("12.5"))
    publish(pipeline)
    bulk_id, transfer_id = body["bulkTransferId"], body["individualTransfers"][0]["transferId"]
    story = orjson.loads(run("bulk", "why", bulk_id, transfer_id, "--json", **database).stdout)
    assert story["transfer"]["amount"] == "12.5"
    assert story["bulk"]["items"] == {"ACCEPTED": 1}
    assert orjson.loads(run("transfer", "why", transfer_id, "--json", **database).stdout) == story
    shown = run("bulk", "why", bulk_id, transfer_id, **database)
    assert shown.returncode == 0, shown.stderr
    assert "RECEIVED_PREPARE → RESERVED" in shown.stdout
    assert "pays 12.5 USD to payeefsp" in shown.stdout
    whole = run("bulk", "why", bulk_id, **database)
    assert "PENDING_PREPARE → ACCEPTED" in whole.stdout
    assert "It waits for the answer of payeefsp" in whole.stdout
    for arguments in (("bulk", "why", transfer_id), ("bulk", "why", bulk_id, bulk_id), ("transfer", "why", bulk_id)):
        done = run(*arguments, **database)
        assert done.returncode == 1
        assert done.stderr.startswith("bulk-switch: no ")


def posted_but_held(pipeline: Pipeline, topic: str) -> dict[str, Any]:
    pipeline.held.add(topic)
    return posted(pipeline, item("10"), item("20"))


def release(pipeline: Pipeline, topic: str) -> None:
    pipeline.held.discard(topic)
    pipeline.run()
