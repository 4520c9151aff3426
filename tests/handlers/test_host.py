"""A process is ready when each of its consumers owns what it should, and ends when one of its loops does."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from db.reference_data import HUB_NAME
from db.slots import lock_class
from handlers.handler import Crash
from handlers.host import HandlerHost, HandlerWorld
from handlers.loop import HandlerLoop, LoopLimits
from object_store.folder import FolderObjectStore
from schemas.topics import CATALOGUE
from stream.interface import TopicDescription
from stream.table import TableStream

_NAMES = ("position", "timeout")


@pytest.fixture
def world(engine: Engine, object_store: FolderObjectStore) -> HandlerWorld:
    stream = TableStream(engine)
    stream.create_topics(TopicDescription(topic.name, 2, topic.retention_ms) for topic in CATALOGUE.values())
    return HandlerWorld(engine, stream, object_store, HUB_NAME, loop_limits=LoopLimits(batch_wait_ms=20, pause_ms=5))


@contextmanager
def running_host(names: Sequence[str], world: HandlerWorld) -> Iterator[HandlerHost]:
    host = HandlerHost(names, world)
    thread = threading.Thread(target=host.run)
    thread.start()
    try:
        yield host
    finally:
        host.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture
def running(world: HandlerWorld) -> Iterator[HandlerHost]:
    with running_host(_NAMES, world) as host:
        yield host


def wait_until_ready(host: HandlerHost) -> None:
    deadline = time.monotonic() + 30
    while not host.readiness().ready:
        assert time.monotonic() < deadline, host.readiness().trouble
        threading.Event().wait(0.02)


def test_a_consumer_that_owns_nothing_is_not_ready(world: HandlerWorld) -> None:  # D28
    host = HandlerHost(_NAMES, world)
    assert host.readiness().trouble == dict.fromkeys(_NAMES, "owns no partition")


def test_a_host_becomes_ready_when_its_consumers_own_their_partitions(running: HandlerHost) -> None:  # D28
    wait_until_ready(running)


def test_a_spare_instance_is_ready_without_a_partition(world: HandlerWorld, running: HandlerHost) -> None:
    """Two partitions have two members at most; a third waits for one of them to go, and that is no fault."""
    wait_until_ready(running)
    assert running.readiness().spares == []
    with running_host(["position"], world) as second:
        wait_until_ready(second)
        with running_host(["position"], world) as third:
            wait_until_ready(third)
            assert third.readiness().spares == ["position"]


def test_a_spare_gets_to_work_when_a_partition_is_added(world: HandlerWorld) -> None:
    quick = replace(world, stream=TableStream(world.engine, membership_check_ms=50, partitions_kept_ms=50))
    quick = replace(quick, loop_limits=replace(world.loop_limits, slot_check_interval_ms=10))
    with ExitStack() as stack:
        hosts = [stack.enter_context(running_host(["position"], quick)) for _ in range(3)]
        for host in hosts:
            wait_until_ready(host)
        deadline = time.monotonic() + 30
        while [len(host.readiness().spares) for host in hosts].count(1) != 1:
            assert time.monotonic() < deadline
        quick.stream.change_topic(TopicDescription("topic-transfer-position", 3, 60_000))
        while any(host.readiness().spares or not host.readiness().ready for host in hosts):
            assert time.monotonic() < deadline, [host.readiness() for host in hosts]


def test_a_loop_whose_instance_number_is_gone_takes_one_anew(engine: Engine, world: HandlerWorld) -> None:
    """X-36: it does not go on under a number that another process may have by now."""
    quick = replace(world, loop_limits=replace(world.loop_limits, slot_check_interval_ms=10))
    holders = text(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = CAST(CAST(:class AS int4) AS oid)"
    )
    parameters = {"class": lock_class("instance:position")}
    with (
        running_host(["position"], quick) as host,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        wait_until_ready(host)
        before = connection.execute(holders, parameters).scalars().all()
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": before[0]})
        deadline = time.monotonic() + 30
        while (now := connection.execute(holders, parameters).scalars().all()) in ([], before):
            assert time.monotonic() < deadline
        assert len(before) == len(now) == 1
        wait_until_ready(host)


def test_a_loop_that_hangs_is_not_ready(running: HandlerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until_ready(running)
    monkeypatch.setattr("handlers.host.STUCK_AFTER_S", -1.0)
    assert set(running.readiness().trouble) == set(_NAMES)


def test_a_loop_that_crashes_ends_the_others_and_the_process(
    world: HandlerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = HandlerHost(_NAMES, world)
    turn = HandlerLoop._turn

    def crash(loop: HandlerLoop, session: object) -> None:
        if loop.handler.name == "timeout":
            raise Crash("a test says so")
        turn(loop, session)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(HandlerLoop, "_turn", crash)
    with pytest.raises(Crash, match="a test says so"):
        host.run()
