"""Topics that are deleted and made again in mid-flight: handlers stop, redrive begins the new logs, everything ends."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.audit import read_audit
from db.clock import now_ms
from db.engine import make_engine
from db.progress import progress_rows
from domain.combinations import TOPIC_TRANSFER_PREPARE
from handlers import journal
from handlers.handler import Crash
from object_store.folder import FolderObjectStore
from operations.new_log import HandlersRun, begin_new_logs, find_new_logs
from operations.verification import verify_database
from stream.interface import NewRecord, Stream, TopicDescription
from stream.opening import open_stream
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, refused
from tests.flows.live_switch import ENDED_BULKS, ENDED_SINGLES, LiveSwitch, delete_topics

pytestmark = pytest.mark.timeout(900)

NEVER_FITS = "999999999"
Body = dict[str, Any]


@pytest.fixture
def wide_engine(database_url: str) -> Iterator[Engine]:
    """Room for every handler of the switch at once."""
    engine = make_engine(database_url, application_name="live", pool_size=70)
    yield engine
    engine.dispose()


@pytest.fixture
def switch(wide_engine: Engine, stream_url: str, object_store: FolderObjectStore) -> Iterator[LiveSwitch]:
    provision(wide_engine)
    stream = open_stream(stream_url, wide_engine)
    switch = LiveSwitch(wide_engine, stream, object_store)
    switch.make_topics()
    yield switch
    switch.stop()
    stream.close()


def _bulk(items: list[Body], now: int) -> Body:
    # Long-lived: what was lost is not to be mended by the clock.
    return bulk(items, now_ms=now, expires_in_ms=3_600_000)


class Load:
    """Bulks and single transfers of mixed outcomes, and what each must come to."""

    def __init__(self, switch: LiveSwitch, chance: Random) -> None:
        self.switch = switch
        self.chance = chance
        with switch.engine.connect() as tx:
            now = now_ms(tx)
        self.bulks = [("COMPLETED", _bulk([item(), item(NEVER_FITS), item()], now)) for _ in range(5)]
        self.bulks += [("REJECTED", _bulk([item(NEVER_FITS)], now)) for _ in range(5)]
        self.singles = [singles.transfer(now_ms=now, expires_in_ms=3_600_000) for _ in range(5)]
        self.answered: set[str] = set()

    def post(self) -> None:
        """Everything in some order; the topics lose some of it, though it was kept: those were answered 503."""
        sends = [("bulkTransfers", body["bulkTransferId"], body) for _, body in self.bulks]
        sends += [("transfers", body["transferId"], body) for body in self.singles]
        self.chance.shuffle(sends)
        for resource, id_, body in sends:
            self.switch.send(resource, id_, body, PAYER, lands=self.chance.random() < 0.8)

    def answer(self) -> None:
        """The payee answers what it has been asked since."""
        for id_ in sorted(self.switch.forwarded() - self.answered):
            self.answered.add(id_)
            lands = self.chance.random() < 0.8
            for _, body in self.bulks:
                if body["bulkTransferId"] == id_:
                    reserved = [body["individualTransfers"][0], body["individualTransfers"][2]]
                    said = answer([committed(reserved[0]), refused(reserved[1])])
                    self.switch.send("bulkTransfers", id_, said, PAYEE, lands=lands)
            for body in self.singles:
                if body["transferId"] == id_:
                    self.switch.send("transfers", id_, singles.fulfilled(body), PAYEE, lands=lands)

    def has_ended(self) -> bool:
        self.answer()
        bulks, transfers = self.switch.states(ENDED_BULKS), self.switch.states(ENDED_SINGLES)
        return all(bulks.get(body["bulkTransferId"]) == sort for sort, body in self.bulks) and all(
            transfers.get(body["transferId"]) == "COMMITTED" for body in self.singles
        )


def steps(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM transfer_state_change")).scalar_one())


def begin_anew(switch: LiveSwitch) -> None:
    begin_new_logs(switch.engine, switch.stream, find_new_logs(switch.engine, switch.stream), actor="test")


@pytest.mark.parametrize("seed", range(2))
def test_everything_ends_though_all_topics_were_lost_twice(switch: LiveSwitch, seed: int) -> None:
    """Bulks and singles of mixed outcomes; what a handler had read ends by redrive, the rest from the object store."""
    load = Load(switch, Random(seed))
    switch.start()
    load.post()
    for wanted in (load.chance.randint(1, 15), load.chance.randint(20, 40)):
        switch.until(lambda wanted=wanted: steps(switch.engine) >= wanted, f"{wanted} steps")  # type: ignore[misc]
        load.answer()
        switch.stop()
        switch.lose_topics()
        # Nothing is read of a log that another offset belongs to, and nobody starts at its beginning in silence.
        failure = switch.failed_start()
        assert isinstance(failure, Crash)
        assert "began anew" in str(failure)
        assert "redrive --new-log" in str(failure)
        begin_anew(switch)
        switch.redrive()
        switch.start()
        switch.until(lambda: not any(one.later for one in switch.redrive().requests), "nothing is left for later")

    def has_ended() -> bool:
        if load.has_ended():
            return True
        # An answer that was kept and did not land is found like any other request.
        switch.redrive()
        return False

    switch.until(has_ended, "everything ends")
    switch.until(lambda: verify_database(switch.engine, settled_ms=0).findings == [], "both sides were told")
    switch.stop()
    assert switch.failures == []
    with switch.engine.connect() as tx:
        told = tx.execute(
            text("SELECT count(*), count(DISTINCT (entity_id, fsp)) FROM delivery WHERE kind = 'FINAL'")
        ).one()
    # Per bulk its payer, and its payee where it was asked; per single transfer its payer.
    assert tuple(told) == (5 * 2 + 5 + 5,) * 2


def test_the_new_log_is_begun_only_while_every_handler_is_stopped(switch: LiveSwitch) -> None:
    switch.start()
    switch.until(lambda: bool(progress(switch.engine)), "a handler owns something")
    with pytest.raises(HandlersRun, match=r"stop every handler first.*\(0\)"):
        begin_anew(switch)
    switch.stop()
    begin_anew(switch)


def progress(engine: Engine) -> dict[tuple[str, int], tuple[int, str | None, bool]]:
    with engine.connect() as tx:
        return {
            (row.topic, row.partition): (row.next_offset, row.log_id, row.has_outputs)
            for row in progress_rows(tx, [TOPIC_TRANSFER_PREPARE])
        }


def test_stored_outputs_of_an_old_log_are_sent_and_rows_begin_where_the_new_one_does(
    engine: Engine, stream_url: str, object_store: FolderObjectStore
) -> None:
    """What was decided is said, also by partitions that are gone; rows of the log that is still there stay as they are."""
    stream = open_stream(stream_url, engine)
    switch = LiveSwitch(engine, stream, object_store)
    switch.make_topics(partitions=3)
    outputs = [NewRecord("topic-bulk-processing", b"key", b"value %d" % number) for number in range(2)]
    with engine.begin() as tx:
        for partition in (0, 2):
            tx.execute(
                text(
                    "INSERT INTO handler_progress (handler, topic, partition, next_offset, outputs, log_id)"
                    " VALUES ('prepare', :topic, :partition, 41, :outputs, :log)"
                ),
                {
                    "topic": TOPIC_TRANSFER_PREPARE,
                    "partition": partition,
                    "outputs": journal.pack([outputs[partition // 2]]),
                    "log": "the log before",
                },
            )
        tx.execute(
            text(
                "INSERT INTO handler_progress (handler, topic, partition, next_offset, log_id)"
                " VALUES ('position', 'topic-transfer-position', 0, 0, :log)"
            ),
            {"log": stream.log_id("topic-transfer-position")},
        )
    delete_topics(engine, stream)
    stream.close()
    again = open_stream(stream_url, engine)
    again.create_topics(
        [TopicDescription(topic, 2, 3_600_000) for topic in ("topic-transfer-prepare", "topic-bulk-processing")]
    )
    switch.stream = again
    switch.make_topics()
    rows = find_new_logs(engine, again)
    # The topics of both were made again; one of the three rows has a partition that is not there any more.
    assert {(row.topic, row.partition, row.next_offset) for row in rows} == {
        (TOPIC_TRANSFER_PREPARE, 0, 0),
        (TOPIC_TRANSFER_PREPARE, 2, None),
        ("topic-transfer-position", 0, 0),
    }
    begin_anew(switch)
    log_id = again.log_id(TOPIC_TRANSFER_PREPARE)
    assert progress(engine) == {(TOPIC_TRANSFER_PREPARE, 0): (0, log_id, False)}
    assert sorted(values(again, "topic-bulk-processing")) == [b"value 0", b"value 1"]
    assert find_new_logs(engine, again) == []
    with engine.connect() as tx:
        acts = [(act.action, act.before) for act in read_audit(tx) if act.action == "begin_new_log"]
    assert ("begin_new_log", {"log": "the log before", "nextOffset": 41}) in acts
    assert len(acts) == 3
    again.close()


def values(stream: Stream, topic: str) -> list[bytes]:
    return [
        record.value
        for partition, end in stream.end_offsets(topic).items()
        if end
        for record in stream.read(topic, partition, 0, 100)
    ]
