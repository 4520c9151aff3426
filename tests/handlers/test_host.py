"""A process is ready when each of its consumers owns what it should, and ends when one of its loops does."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from db.reference_data import HUB_NAME
from db.slots import InstanceSlot
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


@pytest.fixture
def running(world: HandlerWorld) -> Iterator[HandlerHost]:
    host = HandlerHost(_NAMES, world)
    thread = threading.Thread(target=host.run)
    thread.start()
    yield host
    host.stop()
    thread.join(timeout=30)
    assert not thread.is_alive()


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
    with InstanceSlot(world.engine, "position"):
        host = HandlerHost(["position"], world)
        thread = threading.Thread(target=host.run)
        thread.start()
        try:
            wait_until_ready(host)
        finally:
            host.stop()
            thread.join(timeout=30)


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
