"""Instance numbers are held by living connections alone, the lowest free one first, and never by two."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from db.slots import INSTANCES_MAX, InstanceSlot, NoFreeSlot
from tests.operations.processes import wait_until


def test_whoever_comes_takes_the_lowest_free_number(engine: Engine) -> None:
    first, second, other = (InstanceSlot(engine, handler) for handler in ("position", "position", "prepare"))
    assert (first.number, second.number, other.number) == (0, 1, 0)
    assert (first.held(), second.held(), other.held()) == (2, 2, 1)
    first.close()
    wait_until(lambda: second.held() == 1, "the end of the first")
    with InstanceSlot(engine, "position") as third:
        assert (third.number, third.held(), second.number) == (0, 2, 1)
    # The server gives a number back when it notices that its connection has gone.
    wait_until(lambda: second.held() == 1, "the end of the third")
    second.close()
    other.close()


def test_processes_that_race_for_numbers_get_different_ones(engine: Engine) -> None:
    racers = 8
    together = threading.Barrier(racers)

    def take(_: int) -> InstanceSlot:
        together.wait()
        return InstanceSlot(engine, "position")

    with ThreadPoolExecutor(racers) as threads:
        slots = list(threads.map(take, range(racers)))
    assert sorted(slot.number for slot in slots) == list(range(racers))
    for slot in slots:
        slot.close()


def test_a_number_whose_connection_was_lost_is_free_and_its_holder_finds_out(engine: Engine) -> None:
    lost = InstanceSlot(engine, "position")
    assert lost.held() == 1
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 0 AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 10000) FROM ({holder}) AS holder"))
    with InstanceSlot(engine, "position") as successor:
        assert successor.number == 0
        with pytest.raises(OperationalError):
            lost.held()
    lost.close()


def test_when_every_number_is_taken_that_is_said(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert INSTANCES_MAX >= 1
    monkeypatch.setattr("db.slots.INSTANCES_MAX", 1)
    with InstanceSlot(engine, "position") as only:
        with pytest.raises(NoFreeSlot, match="position: all 1 instance numbers are taken"):
            InstanceSlot(engine, "position")
        assert only.held() == 1
