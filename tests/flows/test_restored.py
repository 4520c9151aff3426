"""A database is restored to an earlier moment; topics, objects and FSPs went on: the procedure, and its list."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from db.audit import read_audit
from db.clock import now_ms
from db.engine import make_engine
from db.restored import last_number
from domain.identifiers import ITEMS_PER_BULK, id_bytes
from object_store.folder import FolderObjectStore
from operations.restored import NUMBERS_MARGIN, RestoredReport, run_restored
from operations.verification import verify_database
from schemas.codec import codec
from schemas.messages import DeadLetter, TransferPrepare
from stream.interface import NewRecord
from stream.opening import TABLE_URL, open_stream
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision
from tests.flows.expirations import end_its_time
from tests.flows.live_switch import ENDED_BULKS, ENDED_SINGLES, LiveSwitch

Body = dict[str, Any]


class Backups:
    """Copies of the switch's database; its topics stand in another one, which nobody restores."""

    def __init__(self, postgres_url: str, database_url: str) -> None:
        self._server = create_engine(
            postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
        )
        self._url = database_url
        name = make_url(database_url).database
        assert name is not None
        self._name = name
        self._made: list[str] = []

    def take(self, suffix: str) -> str:
        """A copy of the database as it is now, which nobody uses meanwhile."""
        name = f"{self._name}_{suffix}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._name}")
        self._made.append(name)
        return name

    def restore(self, name: str) -> None:
        """Put the database back to where the copy was taken."""
        self._execute(f"DROP DATABASE {self._name} WITH (FORCE)")
        self._execute(f"CREATE DATABASE {self._name} TEMPLATE {name}")

    def close(self) -> None:
        for name in self._made:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        self._server.dispose()

    def url_of(self, name: str) -> str:
        return self._url.replace(f"/{self._name}?", f"/{name}?")

    def _execute(self, statement: str) -> None:
        with self._server.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture
def backups(postgres_url: str, database_url: str) -> Iterator[Backups]:
    backups = Backups(postgres_url, database_url)
    yield backups
    backups.close()


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    engine = make_engine(url, application_name="live", pool_size=70)
    try:
        yield engine
    finally:
        engine.dispose()


class World:
    """A switch whose topics are in a database of their own."""

    def __init__(self, database_url: str, backups: Backups, store: FolderObjectStore) -> None:
        self.database_url = database_url
        self.backups = backups
        # The topics' database is a copy of the empty one; only its stream tables are used.
        self._stream_engine = make_engine(
            backups.url_of(backups.take("topics")), application_name="topics", pool_size=70
        )
        engine = make_engine(database_url, application_name="live", pool_size=70)
        provision(engine)
        self.switch = LiveSwitch(engine, open_stream(TABLE_URL, self._stream_engine), store)
        self.switch.make_topics()

    def copy(self) -> str:
        self.switch.stop()
        self.switch.engine.dispose()
        return self.backups.take("backup")

    def restore(self, name: str) -> None:
        self.switch.stop()
        self.switch.engine.dispose()
        self.backups.restore(name)
        self.switch.engine = make_engine(self.database_url, application_name="live", pool_size=70)

    def restored(self, since_ms: int, until_ms: int, *, is_dry_run: bool = False) -> RestoredReport:
        return run_restored(
            self.switch.engine,
            self.switch.store,
            self.switch.stream,
            since_ms=since_ms,
            until_ms=until_ms,
            items_per_bulk_max=1_000,
            actor="test",
            is_dry_run=is_dry_run,
        )

    def close(self) -> None:
        self.switch.stop()
        self.switch.engine.dispose()
        self._stream_engine.dispose()


@pytest.fixture
def lived(
    database_url: str, backups: Backups, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    # No power is cut here; syncing some hundred files is what these tests would wait for.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    world = World(database_url, backups, object_store)
    yield world
    world.close()


def now(engine: Engine) -> int:
    with engine.connect() as tx:
        return now_ms(tx)


def send_bulk(switch: LiveSwitch, body: Body) -> None:
    switch.send("bulkTransfers", body["bulkTransferId"], body, PAYER)


def send_answer(switch: LiveSwitch, body: Body) -> None:
    said = answer([committed(one) for one in body["individualTransfers"]])
    switch.send("bulkTransfers", body["bulkTransferId"], said, PAYEE)


def make_bulk(switch: LiveSwitch, items: int = 2) -> Body:
    return bulk([item() for _ in range(items)], now_ms=now(switch.engine), expires_in_ms=3_600_000)


def state(switch: LiveSwitch, body: Body) -> str | None:
    return switch.states(ENDED_BULKS).get(body["bulkTransferId"])


def until_state(switch: LiveSwitch, body: Body, wanted: str) -> None:
    switch.until(lambda: state(switch, body) == wanted, f"{wanted}, not {state(switch, body)}")


def until_forwarded(switch: LiveSwitch, *ids: str) -> None:
    switch.until(lambda: set(ids) <= switch.forwarded(), "the payee is asked")


def test_the_procedure_after_a_restore_ends_everything_and_lists_what_contradicts(lived: World) -> None:
    """A bulk in the middle, one and a single unknown to the copy; and one that the lost time committed, too late now."""
    switch = lived.switch
    switch.start()
    open_then, too_late = make_bulk(switch), make_bulk(switch)
    send_bulk(switch, open_then)
    send_bulk(switch, too_late)
    until_forwarded(switch, open_then["bulkTransferId"], too_late["bulkTransferId"])
    copy, since_ms = lived.copy(), now_of_store()
    # The time that is going to be lost.
    switch.start()
    unknown = make_bulk(switch, items=3)
    single = singles.transfer(now_ms=now(switch.engine), expires_in_ms=3_600_000)
    send_bulk(switch, unknown)
    switch.send("transfers", single["transferId"], single, PAYER)
    until_forwarded(switch, unknown["bulkTransferId"], single["transferId"])
    for body in (open_then, too_late, unknown):
        send_answer(switch, body)
    switch.send("transfers", single["transferId"], singles.fulfilled(single), PAYEE)
    for body in (open_then, too_late, unknown):
        until_state(switch, body, "COMPLETED")
    switch.until(lambda: switch.states(ENDED_SINGLES)[single["transferId"]] == "COMMITTED", "the single transfer ends")
    switch.stop()
    with switch.engine.connect() as tx:
        last_of_lost_time = last_number(tx)
    until_ms = now_of_store()
    lived.restore(copy)
    end_its_time(switch.engine, too_late["bulkTransferId"])

    report = lived.restored(since_ms, until_ms)
    assert report.highest_number == last_of_lost_time > report.last_number
    assert report.advanced_to == last_of_lost_time + NUMBERS_MARGIN
    assert {one.request: one.published + one.later for one in report.requests} == {
        "POST /bulkTransfers": 1,
        "PUT /bulkTransfers/{ID}": 3,
        "POST /transfers": 1,
        "PUT /transfers/{ID}": 1,
    }
    read_again = {one.topic for one in report.unread if one.is_read_again}
    assert read_again == {"topic-bulk-prepare", "topic-single-transfer-prepare"}
    # All that was committed in the lost time is said and not so: for payer and payee in one list of the same bytes each.
    assert {one.transfer_id for one in report.contradictions} == {
        id_bytes(one["transferId"]) for body in (open_then, too_late, unknown) for one in body["individualTransfers"]
    }

    switch.start()
    switch.until(lambda: not any(one.later for one in switch.redrive().requests), "nothing is left for later")
    until_state(switch, open_then, "COMPLETED")
    until_state(switch, unknown, "COMPLETED")
    until_state(switch, too_late, "EXPIRED")
    switch.until(lambda: switch.states(ENDED_SINGLES)[single["transferId"]] == "COMMITTED", "the single transfer ends")
    switch.until(lambda: verify_database(switch.engine, settled_ms=0).findings == [], "both sides were told")
    switch.stop()
    assert switch.failures == []
    left = lived.restored(since_ms, until_ms, is_dry_run=True)
    # The hub's own clock decided otherwise: this is what people have to settle with both FSPs.
    assert {(one.transfer_id, one.bulk_transfer_id, one.said, one.now) for one in left.contradictions} == {
        (id_bytes(one["transferId"]), too_late["bulkTransferId"], "COMMITTED", "3303")
        for one in too_late["individualTransfers"]
    }
    assert left.requests == [] or {one.request for one in left.requests} == {"PUT /bulkTransfers/{ID}"}


def _scalar(engine: Engine, query: Any) -> Any:
    with engine.connect() as tx:
        return tx.execute(query).scalar_one()


def now_of_store() -> int:
    """The clock that the folder's files have."""
    return time.time_ns() // 1_000_000


def test_an_old_message_never_moves_the_money_of_another_bulk(lived: World) -> None:
    """The number of a bulk of the lost time is given to nobody: its message, sent again, is about nothing."""
    switch = lived.switch
    copy, since_ms = lived.copy(), now_of_store()
    switch.start()
    lost = make_bulk(switch)
    send_bulk(switch, lost)
    until_forwarded(switch, lost["bulkTransferId"])
    switch.stop()
    topic = "topic-transfer-prepare"
    [old] = [
        record
        for partition in range(switch.stream.partitions(topic))
        for record in switch.stream.read(topic, partition, 0, 10)
    ]
    with switch.engine.connect() as tx:
        number = last_number(tx)
    # A dead letter that somebody may send again names a still higher one.
    [message, *_] = codec(TransferPrepare).decode(old.value)
    higher = number + 7
    letter = DeadLetter(
        "prepare",
        topic,
        0,
        0,
        old.key,
        codec(TransferPrepare).encode([_with_key(message, higher * ITEMS_PER_BULK + 1)]),
        "a test says so",
        0,
    )
    switch.publish([NewRecord(f"{topic}-dead-letter", old.key, codec(DeadLetter).encode([letter]))])
    lived.restore(copy)
    report = lived.restored(since_ms, now_of_store())
    assert report.highest_number == higher
    with switch.engine.connect() as tx:
        assert last_number(tx) == report.advanced_to == higher + NUMBERS_MARGIN
        assert [act.action for act in read_audit(tx)][-1] == "restored"
    switch.start()
    other = make_bulk(switch)
    send_bulk(switch, other)
    until_forwarded(switch, other["bulkTransferId"], lost["bulkTransferId"])
    switch.publish([NewRecord(topic, old.key, old.value)])
    send_answer(switch, other)
    send_answer(switch, lost)
    until_state(switch, other, "COMPLETED")
    until_state(switch, lost, "COMPLETED")
    switch.until(lambda: verify_database(switch.engine, settled_ms=0).findings == [], "both sides were told")
    numbers = text("SELECT min(bulk_key) FROM bulk_transfer")
    assert _scalar(switch.engine, numbers) > report.advanced_to


def _with_key(message: TransferPrepare, transfer_key: int) -> TransferPrepare:
    values = {name: getattr(message, name) for name in TransferPrepare.__dataclass_fields__}
    return TransferPrepare(**values | {"transfer_key": transfer_key})
