"""CPU seconds are counted for a process and for its children, those that have ended included."""

import os
import subprocess
import sys
import time

import pytest

from bench.cpu import POSTGRES, CpuReading, NoSuchProcess, process_seconds, read_cpu, used_between, used_by_application

_BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
# Starts a child that burns and ends, then burns itself, then waits to be let go.
_PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, '-c', {_BURN!r}])
{_BURN}
print('done', flush=True)
input()
"""


def test_a_child_that_has_ended_still_counts() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"done\n"
        # Each burned 0.3 s; ticks are 10 ms, and a busy machine adds what starting an interpreter costs.
        assert process_seconds(parent.pid) >= 0.55
        reading = read_cpu({}, parent.pid)
        assert reading.seconds[POSTGRES] >= 0.55
        parent.stdin.write(b"\n")
    with pytest.raises(NoSuchProcess, match=str(parent.pid)):
        process_seconds(parent.pid)


def test_a_living_child_counts_for_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", f"{_BURN}print('done', flush=True)\ninput()"], stdin=-1, stdout=-1
    ) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        assert one.stdout.readline() == b"done\n"
        reading = read_cpu({}, os.getpid())
        assert reading.backends[one.pid] >= 0.28
        one.stdin.write(b"\n")


def test_only_what_was_used_between_two_readings_counts() -> None:
    before = read_cpu({"us": os.getpid()}, os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert 0.15 <= used_between(before, read_cpu({"us": os.getpid()}, os.getpid()))["us"] <= 1.0


def test_what_no_application_used_is_background() -> None:
    before = CpuReading({POSTGRES: 10.0}, {1: 1.0, 2: 2.0})
    # Backend 3 came and went: it stands in the sum alone.
    after = CpuReading({POSTGRES: 16.0}, {1: 2.0, 2: 4.0})
    assert used_by_application(before, after, {1: "api"}) == {"background": 5.0, "api": 1.0}
