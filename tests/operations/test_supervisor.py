"""The supervisor restarts what dies, stops everything in good order, and leaves no orphans when it is killed itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from operations.supervisor import ProcessDescription, Supervisor

pytestmark = pytest.mark.process

_ROOT = Path(__file__).parents[2]
_DEADLINE_S = 60.0

# A child as the switch's own are: it ties its life to the supervisor, then says that it runs, and waits.
_CHILD = """
from operations.supervisor import die_with_supervisor
die_with_supervisor()
import signal, sys, time
{before}
print("running", flush=True)
time.sleep(600)
"""


def child(name: str, before: str = "") -> ProcessDescription:
    return ProcessDescription(name, (sys.executable, "-c", _CHILD.format(before=before)))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def exists(pid: int) -> bool:
    """Whether the process runs; a zombie, whose parent has not asked for its status yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, reports: list[str]) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(*descriptions: ProcessDescription) -> Supervisor:
        made.append(Supervisor(descriptions, {"PYTHONPATH": str(_ROOT)}, tmp_path / "logs", reports.append))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop(wait_s=0)


def runs(supervisor: Supervisor, name: str) -> bool:
    log = supervisor.logs()[name]
    return log.exists() and "running" in log.read_text()


def test_a_killed_process_is_started_again_and_the_others_are_left_alone(
    make: Callable[..., Supervisor], reports: list[str]
) -> None:
    supervisor = make(child("one"), child("two"))
    supervisor.start()
    before = supervisor.pids()

    os.kill(before["one"], signal.SIGKILL)
    wait_until(supervisor.look_after)

    after = supervisor.pids()
    assert after["one"] != before["one"]
    assert after["two"] == before["two"]
    assert len(reports) == 1
    assert reports[0].startswith("one was killed by signal 9; starting it again in 0.1 s")


def test_a_process_that_keeps_dying_is_started_at_growing_intervals(
    make: Callable[..., Supervisor], reports: list[str]
) -> None:
    supervisor = make(child("broken", before="sys.exit(3)"))
    supervisor.start()

    wait_until(lambda: (supervisor.look_after(), len(reports) >= 3)[1])

    assert [report.split(" (")[0] for report in reports[:3]] == [
        "broken ended with status 3; starting it again in 0.1 s",
        "broken ended with status 3; starting it again in 0.2 s",
        "broken ended with status 3; starting it again in 0.4 s",
    ]


def test_stop_ends_every_process_and_kills_the_one_that_does_not_listen(make: Callable[..., Supervisor]) -> None:
    supervisor = make(child("obedient"), child("deaf", before="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    supervisor.start()
    wait_until(lambda: runs(supervisor, "obedient") and runs(supervisor, "deaf"))
    pids = supervisor.pids()

    supervisor.stop(wait_s=0.2)

    assert supervisor.pids() == {}
    assert not any(exists(pid) for pid in pids.values())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ties a child's life to its parent's")
def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from operations.supervisor import ProcessDescription, Supervisor
command = (sys.executable, "-c", {_CHILD.format(before="")!r})
supervisor = Supervisor([ProcessDescription("child", command)], {{}}, Path({str(tmp_path)!r}), print)
supervisor.start()
print(supervisor.pids()["child"], flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=_ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: "running" in (tmp_path / "child.log").read_text())

        parent.kill()
        parent.wait()

    wait_until(lambda: not exists(pid))


def test_a_large_log_is_set_aside_when_its_process_starts(
    make: Callable[..., Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.supervisor._LOG_BYTES_MAX", 10)
    supervisor = make(child("one"))
    (tmp_path / "logs" / "one.log").write_text("more than ten bytes")

    supervisor.start()
    wait_until(lambda: runs(supervisor, "one"))

    assert (tmp_path / "logs" / "one.log.1").read_text() == "more than ten bytes"
    assert (tmp_path / "logs" / "one.log").read_text() == "running\n"
