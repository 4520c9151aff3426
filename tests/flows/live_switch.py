"""All handlers in threads on a real stream, with FSPs whose requests are kept and published as the edge does it.

The switch may be stopped and started again at any moment; `lose_topics` deletes all topics and makes them again, on either
stream. The payee answers what it was asked, as the deliveries say; what is published while topics are lost is lost too.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from sqlalchemy import Engine, text

from db.clock import now_ms
from db.reference_data import HUB_NAME
from db.slots import running_instances
from domain.bulk_prepare import BulkRules
from domain.identifiers import id_bytes
from handlers.host import HANDLER_NAMES, HandlerHost, HandlerWorld
from handlers.loop import LoopLimits
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.interface import ObjectStore
from operations.redrive import RedriveReport, RedriveScope, run_redrive
from operations.redrive_requests import FoundRequest, kind_of, message_of
from schemas.codec import codec
from schemas.topics import CATALOGUE
from stream.interface import NewRecord, Stream, TopicDescription, UnknownTopic
from stream.kafka import KafkaStream

DEADLINE_S = 180
PARTITIONS = 2
_LIMITS = LoopLimits(batch_items=40, batch_wait_ms=20, pause_ms=2, records_ahead_max=20, idle_journal_ms=200)
_MEDIA_TYPE = "application/vnd.interoperability.{}+json;version=1.1"
# What a POST or PUT leads to once it is on its topic.
ENDED_BULKS = text(
    "SELECT CAST(b.bulk_transfer_id AS text), s.to_state FROM bulk_transfer b"
    " JOIN bulk_transfer_state_change s USING (bulk_key)"
    " WHERE NOT EXISTS (SELECT FROM bulk_transfer_state_change n"
    "   WHERE n.bulk_key = s.bulk_key AND n.from_state = s.to_state)"
)
ENDED_SINGLES = text(
    "SELECT CAST(t.transfer_id AS text), s.to_state FROM single_transfer x JOIN transfer t USING (transfer_key)"
    " JOIN transfer_state_change s USING (transfer_key)"
    " WHERE NOT EXISTS (SELECT FROM transfer_state_change n"
    "   WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)"
)
_FORWARDED = text("SELECT CAST(entity_id AS text) FROM delivery WHERE kind = 'FORWARD'")


class LiveSwitch:
    """`engine` may be replaced while the switch is stopped: by one on a restored database."""

    def __init__(self, engine: Engine, stream: Stream, store: ObjectStore) -> None:
        self.engine = engine
        self.stream = stream
        self.store = store
        self.failures: list[BaseException] = []
        self._host: HandlerHost | None = None
        self._thread: threading.Thread | None = None
        self.answered: set[str] = set()

    def start(self) -> None:
        world = HandlerWorld(self.engine, self.stream, self.store, HUB_NAME, loop_limits=_LIMITS, tick_ms=100)
        self._host = HandlerHost(HANDLER_NAMES, world)
        self._thread = threading.Thread(target=self._run, args=(self._host,))
        self._thread.start()

    def stop(self) -> None:
        if self._host is not None and self._thread is not None:
            self._host.stop()
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive()
            self._host = self._thread = None
            self._wait_for_free_numbers()

    def failed_start(self) -> BaseException:
        """Start, wait until it fails by itself, and return with what."""
        self.start()
        assert self._thread is not None
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "it did not stop by itself"
        self._host = self._thread = None
        self._wait_for_free_numbers()
        failure, self.failures = self.failures[0], []
        return failure

    def _wait_for_free_numbers(self) -> None:
        """A handler's number is held until the server has seen its connection end, which is a moment after the handler."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with self.engine.connect() as tx:
                running = running_instances(tx, HANDLER_NAMES)
            if not running:
                return
            assert time.monotonic() < deadline, running
            threading.Event().wait(0.03)

    def _run(self, host: HandlerHost) -> None:
        try:
            host.run()
        except BaseException as failure:
            self.failures.append(failure)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, what
            threading.Event().wait(0.03)

    # FSPs.

    def send(self, resource: str, entity_id: str, body: Mapping[str, Any], source: str, *, lands: bool = True) -> None:
        """Keep a request, and publish it unless the topic is to lose it."""
        key, request_id = id_bytes(entity_id), uuid.uuid4().bytes
        with self.engine.connect() as tx:
            at_ms = now_ms(tx)
        headers = {"content-type": _MEDIA_TYPE.format(resource)}
        kept = KeptRequest(source, None, at_ms, headers, orjson.dumps(body))
        self.store.put(request_key(key, request_id), pack_request(kept))
        if lands:
            kind = kind_of(headers["content-type"], body)
            assert kind is not None
            output = message_of(kind, FoundRequest(key, request_id, kept, dict(body)), 1_000)
            assert output is not None
            value = codec(type(output.message)).encode([output.message])
            self.publish([NewRecord(output.topic, output.key, value)])

    def publish(self, records: list[NewRecord]) -> None:
        producer = self.stream.producer()
        producer.produce(records)
        producer.wait_for_acks(30_000)
        producer.close()

    def forwarded(self) -> set[str]:
        with self.engine.connect() as tx:
            return set(tx.execute(_FORWARDED).scalars())

    # Operators.

    def redrive(self, *, from_objects: bool = True) -> RedriveReport:
        return run_redrive(
            self.engine,
            self.store,
            self.stream,
            BulkRules(),
            RedriveScope((), 0 if from_objects else None),
            items_per_bulk_max=1_000,
            actor="test",
        )

    def make_topics(self, partitions: int = PARTITIONS) -> None:
        self.stream.create_topics(
            TopicDescription(topic.name, partitions, topic.retention_ms) for topic in CATALOGUE.values()
        )

    def lose_topics(self) -> None:
        """Delete all topics and make them again, empty."""
        delete_topics(self.engine, self.stream)
        self.make_topics()

    def states(self, query: Any) -> dict[str, str]:
        with self.engine.connect() as tx:
            return {row[0]: row[1] for row in tx.execute(query)}


def delete_topics(engine: Engine, stream: Stream, topics: Iterable[str] = CATALOGUE) -> None:
    """These topics with all their records; on the table stream every topic there is."""
    if isinstance(stream, KafkaStream):
        # No part of the switch deletes a topic, so this goes past what a stream offers.
        admin = stream._admin
        for future in admin.client().delete_topics([admin.prefix + topic for topic in topics]).values():
            future.result(30)
        for topic in topics:
            _wait_until_gone(stream, topic)
        return
    with engine.begin() as tx:
        for table in ("stream_record", "stream_partition", "stream_topic"):
            tx.execute(text(f"DELETE FROM {table}"))


def _wait_until_gone(stream: KafkaStream, topic: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            stream.log_id(topic)
        except UnknownTopic:
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"{topic} is still there")
