"""Several instances of every handler at once, on two partitions, with records that come again: one outcome per bulk."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text

from db.clock import now_ms
from db.engine import make_engine
from db.reference_data import HUB_NAME
from domain.combinations import BULK_FULFIL, BULK_PREPARE
from domain.identifiers import id_bytes
from domain.money import UNITS
from handlers.host import HandlerHost, HandlerWorld
from handlers.loop import LoopLimits
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.interface import ObjectStore
from schemas.codec import codec
from schemas.messages import BulkFulfil, BulkPrepare
from schemas.topics import CATALOGUE
from stream.interface import NewRecord, Stream, TopicDescription
from stream.opening import TABLE_URL, open_stream
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, refused, world
from tests.flows.expirations import end_its_time

HANDLERS = (
    "bulk-prepare",
    "prepare",
    "position",
    "bulk-processing",
    "bulk-fulfil",
    "fulfil",
    "timeout",
    "notification",
)
INSTANCES = 2
DEADLINE_S = 180
NEVER_FITS = "999999999"


@dataclass
class Running:
    """The handlers, and FSPs who write straight to the topics, as the edge would."""

    engine: Engine
    stream: Stream
    store: ObjectStore
    chance: Random = field(default_factory=lambda: Random(9))

    def __post_init__(self) -> None:
        self._producer = self.stream.producer()

    def post(self, body: dict[str, Any]) -> None:
        self._send(BulkPrepare, BULK_PREPARE, body["bulkTransferId"], body, PAYER, len(body["individualTransfers"]))

    def put(self, bulk_transfer_id: str, body: dict[str, Any]) -> None:
        self._send(BulkFulfil, BULK_FULFIL, bulk_transfer_id, body, PAYEE, 1)

    def _send(self, message: Any, one: Any, id_: str, body: dict[str, Any], source: str, weight: int) -> None:
        key, request_id = id_bytes(id_), self.chance.randbytes(16)
        with self.engine.connect() as tx:
            at_ms = now_ms(tx)
        self.store.put(
            request_key(key, request_id), pack_request(KeptRequest(source, None, at_ms, {}, orjson.dumps(body)))
        )
        said = message(one.type, one.action, one.status, key, request_id, source, at_ms, weight)
        self._producer.produce([NewRecord(one.topic, key, codec(message).encode([said]))])
        self._producer.wait_for_acks(30_000)

    def close(self) -> None:
        self._producer.close()

    def repeat_some(self) -> None:
        """Records of any topic come again behind what stands there now, out of their order."""
        again = [
            NewRecord(topic, record.key, record.value, record.headers)
            for topic in CATALOGUE
            if not topic.endswith("-dead-letter")
            for partition in range(self.stream.partitions(topic))
            for record in self.stream.read(topic, partition, 0, 1_000)
            if self.chance.random() < 0.15
        ]
        self.chance.shuffle(again)
        self._producer.produce(again)
        self._producer.wait_for_acks(30_000)

    def forwarded(self) -> set[str]:
        with self.engine.connect() as tx:
            rows = tx.execute(text("SELECT CAST(entity_id AS text) FROM delivery WHERE kind = 'FORWARD'")).scalars()
            return set(rows)


@pytest.fixture
def running(database_url: str, parts: str, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Two hosts with all handlers each, started at different times, so that partitions change hands on the way."""
    engine = make_engine(database_url, application_name="workers", pool_size=60)
    provision(engine)
    url = TABLE_URL if parts == "queues" else str(request.getfixturevalue("kafka_url"))
    store: ObjectStore = request.getfixturevalue("object_store" if parts == "queues" else "s3_store")
    stream = open_stream(url, engine)
    stream.create_topics(TopicDescription(topic.name, 2, topic.retention_ms) for topic in CATALOGUE.values())
    limits = LoopLimits(batch_items=17, batch_wait_ms=20, pause_ms=2, frame_messages_max=5, records_ahead_max=20)
    handlers = HandlerWorld(engine, stream, store, HUB_NAME, loop_limits=limits, tick_ms=50)
    hosts = [HandlerHost(HANDLERS, handlers) for _ in range(INSTANCES)]
    failures: list[BaseException] = []

    def run(host: HandlerHost) -> None:
        try:
            host.run()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    running = Running(engine, stream, store)
    try:
        yield running
    finally:
        running.close()
        for host in hosts:
            host.stop()
        for thread in threads:
            thread.join(DEADLINE_S)
        stream.close()
        engine.dispose()
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.03)


@pytest.mark.timeout(600)
def test_two_of_every_handler_bring_every_bulk_to_one_outcome(running: Running) -> None:
    """D3, D7, D8, D9, D14, BULK-120, BULK-121, BULK-130, X-35: the last news of a bulk is heard by anybody.

    One bulk of 400 and many small ones; each item fails or not for a reason of its own, which is told for it alone.
    """
    with running.engine.connect() as tx:
        now = now_ms(tx)

    def items(count: int) -> list[dict[str, Any]]:
        kinds = [lambda: item("1"), lambda: item("1", currency="EUR"), lambda: item(NEVER_FITS), lambda: item("1")]
        return [kinds[number % 4]() for number in range(count)]

    # Long-lived: what is stuck is not to be mended by the clock, and the silent one's time ends when the payee was asked.
    made = [bulk(items(count), now_ms=now, expires_in_ms=3_600_000) for count in [400, *[8] * 12]]
    bulks = {body["bulkTransferId"]: body for body in made}
    silent = bulk(items(8), now_ms=now, expires_in_ms=3_600_000)
    for body in [*bulks.values(), silent]:
        running.post(body)
    answered: set[str] = set()

    def finished() -> bool:
        forwarded = running.forwarded()
        if silent["bulkTransferId"] in forwarded - answered:
            end_its_time(running.engine, silent["bulkTransferId"])
            answered.add(silent["bulkTransferId"])
        waiting = (forwarded - answered) & set(bulks)
        for id_ in waiting:
            reserved = [one for one in bulks[id_]["individualTransfers"] if one["transferAmount"]["amount"] == "1"]
            usd = [one for one in reserved if one["transferAmount"]["currency"] == "USD"]
            results = [committed(one) if number % 2 else refused(one) for number, one in enumerate(usd)]
            running.put(id_, answer(results))
            answered.add(id_)
        if waiting:
            # Once for all of them: on a broker it is read partition by partition.
            running.repeat_some()
        ends = world(running.engine).bulks
        return len(ends) == len(bulks) + 1 and all(end[-1] in {"COMPLETED", "EXPIRED"} for end in ends.values())

    until(finished, "every bulk ends")
    running.repeat_some()
    until(lambda: all_read(running), "what came again is read")
    assert_outcomes(running, bulks, silent)


def all_read(running: Running) -> bool:
    """Every handler has come to the end of its topic."""
    with running.engine.connect() as tx:
        rows = tx.execute(text("SELECT topic, partition, next_offset FROM handler_progress")).all()
    read = {(topic, partition): offset for topic, partition, offset in rows}
    topics = {topic for topic, _ in read if topic in CATALOGUE}
    return all(
        read.get((topic, partition), 0) >= end
        for topic in topics
        for partition, end in running.stream.end_offsets(topic).items()
    )


def assert_outcomes(running: Running, bulks: dict[str, Any], silent: dict[str, Any]) -> None:
    after = world(running.engine)
    assert {after.bulks[id_][-1] for id_ in bulks} == {"COMPLETED"}
    assert not any("EXPIRING" in after.bulks[id_] for id_ in bulks)
    assert after.bulks[silent["bulkTransferId"]][-1] == "EXPIRED"
    count = sum(len(body["individualTransfers"]) for body in bulks.values())
    assert after.transfers == {
        "COMMITTED": count // 4,
        "ABORTED_ERROR": count // 4,
        "INVALID": count // 4 + 2,
        "ABORTED_REJECTED": count // 4 + 2,
        "EXPIRED_RESERVED": 4,
    }
    invalid = count // 2 + 4
    assert after.items == {"COMPLETED": count // 4, "REJECTED": count // 4, "RECEIVED_INVALID": invalid, "EXPIRED": 4}
    assert after.positions[PAYER, "USD"] == count // 4 * UNITS == -after.positions[PAYEE, "USD"]
    with running.engine.connect() as tx:
        rows = tx.execute(text("SELECT CAST(entity_id AS text), fsp, kind, content FROM delivery")).all()
    told = Counter((id_, fsp, kind) for id_, fsp, kind, _ in rows)
    per_bulk = {(PAYEE, "FORWARD"): 1, (PAYEE, "FINAL"): 1, (PAYER, "FINAL"): 1}
    assert told == {(id_, *to): 1 for id_ in [*bulks, silent["bulkTransferId"]] for to in per_bulk}
    for id_, fsp, kind, content in rows:
        if (fsp, kind) == (PAYER, "FINAL") and id_ in bulks:
            # D14: no item's reason stands beside another item.
            results = orjson.loads(running.store.get(content))["individualTransferResults"]
            codes = [one.get("errorInformation", {}).get("errorCode") for one in results]
            assert codes == ["5104", "3100", "4001", None] * (len(results) // 4)
            texts = [one["errorInformation"]["errorDescription"] for one in results[1::4]]
            assert set(texts) == {f"Generic validation error - Participant {PAYER} EUR account not found"}
