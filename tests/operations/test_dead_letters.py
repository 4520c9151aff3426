"""Dead letters are listed, read in full and sent again; what has ended meanwhile is not touched by them."""

import time
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text

from db.audit import read_audit
from domain.combinations import TOPIC_TRANSFER_POSITION, TOPIC_TRANSFER_PREPARE
from domain.identifiers import id_bytes
from handlers.batch import Batch, Careful, decode_record
from handlers.handler import BadMessage
from handlers.journal import frames
from handlers.prepare import PrepareHandler
from object_store.folder import FolderObjectStore
from operations.dead_letters import NoSuchDeadLetters, read_letter, read_letters, send_again
from schemas.codec import codec
from schemas.messages import DeadLetter, TransferPrepare
from schemas.topics import dead_letter_topic
from stream.interface import NewRecord, Partition, Record
from tests.bulks import PAYER, bulk, item, world
from tests.operations.all_outcomes import make_pipeline
from tests.operations.test_commands import Run, run
from tests.operations.test_retention import append
from tests.pipeline import Pipeline

__all__ = ["run"]

TOPIC = dead_letter_topic(TOPIC_TRANSFER_PREPARE)


class FailingPrepare(PrepareHandler):
    """A release with a bug: it can end items, but not prepare them."""

    def handle(self, tx: Any, messages: Any) -> Any:
        raise BadMessage("a bug of this release")


@pytest.fixture
def pipeline(engine: Engine, object_store: FolderObjectStore) -> Pipeline:
    return make_pipeline(engine, object_store)


@pytest.fixture
def given_up(pipeline: Pipeline) -> dict[str, Any]:
    """A bulk of one item, whose prepare became a dead letter as the loop makes one; the bulk has ended."""
    pipeline.held.add(TOPIC_TRANSFER_PREPARE)
    body = bulk([item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    [message] = pipeline.queues[TOPIC_TRANSFER_PREPARE]
    pipeline.queues[TOPIC_TRANSFER_PREPARE].clear()
    frame = codec(TransferPrepare).encode([message])
    record = Record(Partition(TOPIC_TRANSFER_PREPARE, 3), 17, message.bulk_transfer_id, frame, 0)
    handler = FailingPrepare()
    batch: Batch = decode_record(handler, record)
    with pipeline.engine.begin() as tx:
        outputs, bad = Careful(handler, tx, races_are_bugs=False).handle(batch)
    assert bad == 1
    for letter in frames([one for one in outputs if one.topic == TOPIC], 250):
        append(pipeline, letter)
    pipeline.send([one for one in outputs if one.topic != TOPIC])
    pipeline.run()
    pipeline.held.clear()
    assert world(pipeline.engine).bulks[body["bulkTransferId"]][-1] == "REJECTED"
    return body


def test_a_dead_letter_is_read_in_full(pipeline: Pipeline, given_up: dict[str, Any]) -> None:
    [found] = read_letters(pipeline.stream, None, 100)
    assert (
        found == read_letter(pipeline.stream, TOPIC_TRANSFER_PREPARE, 0, 0) == read_letter(pipeline.stream, TOPIC, 0, 0)
    )
    assert found.letter is not None
    assert (found.letter.handler, found.letter.reason) == ("prepare", "a bug of this release")
    assert (found.letter.topic, found.letter.partition, found.letter.offset) == (TOPIC_TRANSFER_PREPARE, 3, 17)
    [message] = found.content().messages
    assert message["bulk_transfer_id"] == given_up["bulkTransferId"]
    assert message["transfer_id"] == given_up["individualTransfers"][0]["transferId"]
    assert (message["amount"], message["payer_fsp"]) == ("10", PAYER)


def test_a_message_that_is_sent_again_after_its_end_changes_nothing(
    pipeline: Pipeline, given_up: dict[str, Any]
) -> None:
    """The handler that gave up has ended the bulk: states decide, so it may be sent any number of times (D3)."""
    before, sent = world(pipeline.engine), len(pipeline.sent)
    for _ in range(2):
        send_again(pipeline.engine, pipeline.stream, read_letters(pipeline.stream, TOPIC, 100), actor="tests")
    records = records_of(pipeline, TOPIC_TRANSFER_PREPARE)
    assert [record.key for record in records] == 2 * [id_bytes(given_up["bulkTransferId"])]
    for record in records:
        pipeline.handle(TOPIC_TRANSFER_PREPARE, codec(TransferPrepare).decode(record.value))
    pipeline.run()
    assert world(pipeline.engine) == before
    assert len(pipeline.sent) == sent
    with pipeline.engine.connect() as tx:
        acts = [act for act in read_audit(tx) if act.action == "send_dead_letter_again"]
    assert [(act.actor, act.subject) for act in acts] == 2 * [("tests", f"{TOPIC}/0/0")]
    assert (acts[0].after or {})["topic"] == TOPIC_TRANSFER_PREPARE


def test_a_message_that_still_waits_is_worked_on(pipeline: Pipeline) -> None:
    """A mended release: the same message, sent again, does what it should have done."""
    pipeline.held.add(TOPIC_TRANSFER_PREPARE)
    body = bulk([item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    [message] = pipeline.queues[TOPIC_TRANSFER_PREPARE]
    pipeline.queues[TOPIC_TRANSFER_PREPARE].clear()
    append(pipeline, letter_of(codec(TransferPrepare).encode([message]), key=message.bulk_transfer_id))
    send_again(pipeline.engine, pipeline.stream, [read_letter(pipeline.stream, TOPIC, 0, 0)], actor="tests")
    [record] = records_of(pipeline, TOPIC_TRANSFER_PREPARE)
    pipeline.handle(TOPIC_TRANSFER_PREPARE, codec(TransferPrepare).decode(record.value))
    assert world(pipeline.engine).transfers == {"RECEIVED_PREPARE": 1}
    assert len(pipeline.queues[TOPIC_TRANSFER_POSITION]) == 1


def test_bytes_that_nobody_can_decode_are_shown_and_sent_as_they_are(pipeline: Pipeline) -> None:
    garbage = bytes(range(256)) * 8
    append(pipeline, letter_of(garbage))
    [found] = read_letters(pipeline.stream, TOPIC, 100)
    content = found.content()
    assert (content.messages, content.value_bytes, content.value_hex) == ((), 2048, garbage[:1024].hex())
    assert content.undecodable is not None
    send_again(pipeline.engine, pipeline.stream, [found], actor="tests")
    [record] = records_of(pipeline, TOPIC_TRANSFER_PREPARE)
    assert record.value == garbage


def test_a_record_that_is_no_dead_letter_is_listed_and_stops_a_send(pipeline: Pipeline) -> None:
    append(pipeline, letter_of(b"good"))
    append(pipeline, NewRecord(TOPIC, b"k", b"no letter"))
    found = read_letters(pipeline.stream, TOPIC, 100)
    assert [one.letter is None for one in found] == [False, True]
    with pytest.raises(NoSuchDeadLetters, match=f"{TOPIC}/0/1 cannot be sent again"):
        send_again(pipeline.engine, pipeline.stream, found, actor="tests")
    assert records_of(pipeline, TOPIC_TRANSFER_PREPARE) == [], "nothing is sent when one cannot be"


def test_reading_is_bounded_and_says_what_is_there(pipeline: Pipeline) -> None:
    for number in range(5):
        append(pipeline, letter_of(str(number).encode()))
    assert [one.offset for one in read_letters(pipeline.stream, TOPIC, 3)] == [0, 1, 2]
    with pytest.raises(NoSuchDeadLetters, match="holds the offsets 0 to 4, not 5"):
        read_letter(pipeline.stream, TOPIC, 0, 5)
    with pytest.raises(NoSuchDeadLetters, match="has no partition 1"):
        read_letter(pipeline.stream, TOPIC, 1, 0)
    with pytest.raises(NoSuchDeadLetters, match="no topic topic-nothing-dead-letter; there are topic-bulk-prepare"):
        read_letters(pipeline.stream, "topic-nothing", 3)


def test_the_commands(run: Run, pipeline: Pipeline, given_up: dict[str, Any], database_url: str) -> None:
    database = {"BULK_SWITCH_DATABASE_URL": database_url}
    [listed] = orjson.loads(run("dead-letters", "list", "--json", **database).stdout)
    assert (listed["topic"], listed["offset"], listed["handler"]) == (TOPIC, 0, "prepare")
    table = run("dead-letters", "list", **database).stdout
    assert given_up["bulkTransferId"][:13] in table
    assert "a bug of" in table
    shown = orjson.loads(run("dead-letters", "show", TOPIC, "0", "--json", **database).stdout)
    assert shown["content"]["messages"][0]["bulk_transfer_id"] == given_up["bulkTransferId"]
    assert '"payer_fsp": "payerfsp"' in run("dead-letters", "show", TOPIC, "0", **database).stdout

    planned = run("dead-letters", "send-again", TOPIC, "--all", "--dry-run", "--json", **database)
    assert orjson.loads(planned.stdout) == {"sent": [], "would_be_sent": [f"{TOPIC}/0/0"]}
    assert records_of(pipeline, TOPIC_TRANSFER_PREPARE) == []
    assert run("dead-letters", "send-again", TOPIC, "0", "--yes", **database).returncode == 0
    assert len(records_of(pipeline, TOPIC_TRANSFER_PREPARE)) == 1

    for arguments, line in (
        (("send-again", TOPIC), "give either an OFFSET or --all"),
        (("show", TOPIC, "7"), f"{TOPIC}/0 holds the offsets 0 to 0, not 7"),
        (("list", "--topic", "none"), "no topic none-dead-letter; there are "),
    ):
        done = run("dead-letters", *arguments, **database)
        assert done.returncode == 1
        assert done.stderr.startswith(f"bulk-switch: {line}")


def test_callbacks_that_are_sent_again_are_audited(run: Run, pipeline: Pipeline, database_url: str) -> None:
    with pipeline.engine.begin() as tx:
        number = tx.execute(
            text(
                "INSERT INTO delivery (entity_id, fsp, kind, callback, content, headers, state, finished_date)"
                " VALUES (gen_random_uuid(), 'payerfsp', 'FINAL', 'PUT', 'content/x', '{}', 'DEAD', now())"
                " RETURNING delivery_id"
            )
        ).scalar_one()
    assert run("delivery", "send-again", str(number), BULK_SWITCH_DATABASE_URL=database_url).returncode == 0
    with pipeline.engine.connect() as tx:
        act = read_audit(tx)[-1]
    assert (act.action, act.subject) == ("send_callback_again", f"deliveries/{number}")
    assert (act.before, act.after) == ({"state": "DEAD"}, {"state": "WAITING"})
    assert act.actor.startswith("bulk-switch ")


def letter_of(value: bytes, key: bytes = b"k") -> NewRecord:
    at_ms = time.time_ns() // 1_000_000
    letter = DeadLetter("prepare", TOPIC_TRANSFER_PREPARE, 3, 17, key, value, "tests", at_ms)
    return NewRecord(TOPIC, key, codec(DeadLetter).encode([letter]))


def records_of(pipeline: Pipeline, topic: str) -> list[Record]:
    return [
        record
        for partition in pipeline.stream.end_offsets(topic)
        for record in pipeline.stream.read(topic, partition, 0, 100)
    ]
