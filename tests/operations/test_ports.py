"""A port that somebody has chosen is nobody else's before it is bound, for as long as whoever has chosen it lives."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from operations import ports
from operations.ports import free_ports, reserve_port
from tests.operations.processes import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract Unix sockets are Linux's")

ROOT = Path(__file__).parents[2]
# Beyond all ports, so that nothing on this machine is kept from its own; and of this process, so that no test is either.
FIRST = 1_000_000 + os.getpid() * 1_000

# Reserves a port, has a child, says its process id, and waits.
CHOOSER = """
import subprocess, sys
from operations.ports import reserve_port
print(reserve_port(int(sys.argv[1])), subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def reserved(monkeypatch: pytest.MonkeyPatch) -> Iterator[deque[int]]:
    """What this test has reserved, given back at its end."""
    own: deque[int] = deque()
    monkeypatch.setattr(ports, "_reserved", own)
    yield own
    give_back(own)


def give_back(reserved: deque[int]) -> None:
    while reserved:
        os.close(reserved.popleft())


@pytest.mark.process
def test_a_port_is_reserved_as_long_as_its_chooser_lives_whatever_its_children_do() -> None:
    command = [sys.executable, "-c", CHOOSER, str(FIRST)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as chooser:
        assert chooser.stdout is not None
        said, child_pid = chooser.stdout.readline().split()
        child = psutil.Process(int(child_pid))
        try:
            assert said == "True"
            assert not reserve_port(FIRST)
            chooser.kill()
            wait_until(lambda: reserve_port(FIRST), "the reservation's end")
            assert child.is_running()
        finally:
            chooser.kill()
            child.kill()


def test_a_reserved_port_is_not_given_out_again(monkeypatch: pytest.MonkeyPatch, reserved: deque[int]) -> None:
    [port] = free_ports(1)
    monkeypatch.setattr(ports, "_OWN_PORTS", range(port, port + 1))
    with pytest.raises(OSError, match="fewer than 1 free ports"):
        free_ports(1)
    give_back(reserved)
    assert free_ports(1) == [port]


def test_of_many_ports_of_one_process_the_oldest_are_given_back(
    monkeypatch: pytest.MonkeyPatch, reserved: deque[int]
) -> None:
    monkeypatch.setattr(ports, "_RESERVED_MAX", 3)
    assert all(reserve_port(FIRST + number) for number in range(5))
    assert len(reserved) == 3
    assert [reserve_port(FIRST + number) for number in (4, 3, 2, 1)] == [False, False, False, True]


def test_trouble_other_than_a_taken_name_is_told() -> None:
    with pytest.raises(OSError, match="too long"):
        reserve_port(10**200)
