"""A tiny supervisor: starts processes, starts those that die again after a bounded pause, stops them all.

It keeps the embedded world and the demo running, and nothing more: in production systemd, Kubernetes or the like does
this, one handler per unit. Each process writes to a log file of its own. A child that was started here dies with its
parent (Linux kills it when the parent is gone), so a kill -9 of the supervisor leaves no handler behind that would
still own its partitions. One thread: `look_after` is called again and again by whoever owns the supervisor, and it is
the thread that starts the children, because Linux ties their lives to that thread.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Set for the children, who read it in `die_with_supervisor`.
SUPERVISOR_PID = "BULK_SWITCH_SUPERVISOR_PID"

# The pause before a process is started again doubles while it keeps dying, and is forgotten once it has lived a while.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_LIVED_A_WHILE_S = 30.0
# A log that has grown beyond this is set aside (one generation) when its process starts.
_LOG_BYTES_MAX = 16 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
# As everywhere on the command line.
_MISTAKE_STATUS = 2


def die_with_supervisor() -> None:
    """Called first thing by a child: have Linux kill it when its supervisor is gone; does nothing without one."""
    supervisor = os.environ.pop(SUPERVISOR_PID, "")
    if not supervisor or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):
        # It was gone before the line above; nobody will tell us any more.
        os._exit(1)


class HopelessProcess(Exception):
    """A process ended with the status of a mistake in its settings or arguments: it would do so again and again."""


@dataclass(frozen=True, slots=True)
class ProcessDescription:
    """A process to keep running, and the name that its log file gets."""

    name: str
    command: tuple[str, ...]


class _Child:
    def __init__(self, description: ProcessDescription, log: Path) -> None:
        self.description = description
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.pause_s = _FIRST_PAUSE_S
        self.start_at = 0.0


class Supervisor:
    """Keeps the described processes running between `start` and `stop`; `report` is told what happens to them."""

    def __init__(
        self,
        descriptions: Sequence[ProcessDescription],
        environment: Mapping[str, str],
        log_folder: Path,
        report: Callable[[str], None],
    ) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self._children = [_Child(one, log_folder / f"{one.name}.log") for one in descriptions]
        self._environment = {**os.environ, **environment, SUPERVISOR_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        self._report = report
        self.pid = os.getpid()

    def start(self) -> None:
        for child in self._children:
            self._start(child)

    def look_after(self) -> bool:
        """Start what died and whose pause is over; returns whether any process was started.

        Raises HopelessProcess.
        """
        started = False
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._died(child, child.process.returncode)
            if child.process is None and time.monotonic() >= child.start_at:
                self._start(child)
                started = True
        return started

    def stop(self, wait_s: float) -> None:
        """SIGTERM to all, and SIGKILL to those that have not ended in time."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + wait_s
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self._children:
            child.process = None

    def pids(self) -> dict[str, int]:
        """The processes that run now."""
        return {child.description.name: child.process.pid for child in self._children if child.process is not None}

    def logs(self) -> dict[str, Path]:
        return {child.description.name: child.log for child in self._children}

    def _start(self, child: _Child) -> None:
        if child.log.exists() and child.log.stat().st_size > _LOG_BYTES_MAX:
            child.log.replace(child.log.with_suffix(".log.1"))
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(  # noqa: S603  # our own program, and no shell
                child.description.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is for the supervisor, who stops its children in good order.
                start_new_session=True,
            )
        child.started = time.monotonic()

    def _died(self, child: _Child, code: int) -> None:
        if time.monotonic() - child.started > _LIVED_A_WHILE_S:
            child.pause_s = _FIRST_PAUSE_S
        child.process = None
        if code == _MISTAKE_STATUS:
            raise HopelessProcess(f"{child.description.name} cannot run: {_last_line(child.log)}")
        child.start_at = time.monotonic() + child.pause_s
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self._report(f"{child.description.name} {how}; starting it again in {child.pause_s:.1f} s (log: {child.log})")
        child.pause_s = min(2 * child.pause_s, _LONGEST_PAUSE_S)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("bulk-switch: ") if lines else "it said nothing"
