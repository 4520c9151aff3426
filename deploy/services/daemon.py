"""One process that outlives whoever started it.

Its pid file holds the number and the moment at which that process began, because after a while the number alone may be
anybody's. A process that was started here is awaited here when it ends, so that no zombie stays; what another process
started is awaited by the system. Output goes to a log, which is set aside (one generation) when it has grown too large.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_LOG_BYTES_MAX = 64 * 1024 * 1024
_LOG_LINES_SHOWN = 12
_KILL_WAIT_S = 10.0
# Held for as long as this process lives: who drops a Popen whose process runs is warned about it.
_STARTED: dict[int, "subprocess.Popen[bytes]"] = {}


class Daemon:
    """A process with a pid file and a log."""

    def __init__(self, folder: Path, name: str) -> None:
        self._pid_file = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"

    def start(
        self, command: Sequence[str], *, user: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it in a session of its own, out of reach of the terminal's Ctrl-C; raises OSError."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # our own command, and no shell
                command,
                cwd=self.log.parent,
                env=None if environment is None else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        _STARTED[process.pid] = process
        try:
            began = psutil.Process(process.pid).create_time()
        except psutil.NoSuchProcess:
            began = 0.0
        part = self._pid_file.with_suffix(".part")
        part.write_text(f"{process.pid} {began}\n")
        part.replace(self._pid_file)

    def process(self) -> psutil.Process | None:
        """The living process; None when there is none, or a zombie of it."""
        try:
            pid, began = self._pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        ours = _STARTED.get(int(pid))
        if ours is not None and ours.poll() is not None:
            del _STARTED[ours.pid]
        try:
            process = psutil.Process(int(pid))
            # What the system says twice about one process may differ in the last digits.
            if abs(process.create_time() - float(began)) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            pass
        return None

    def is_running(self) -> bool:
        return self.process() is not None

    def pids(self) -> list[int]:
        """The process and its children."""
        return [process.pid for process in self._tree()]

    def send(self, number: signal.Signals) -> None:
        """To the process and its children; a SIGSTOP first to the parent, which might make more of them."""
        for process in self._tree():
            _send(process, number)

    def terminate(self, number: signal.Signals, wait_s: float) -> None:
        """Ask it to end, continuing it if it is paused; kill it when it has not ended in time."""
        self.ask_to_end(number)
        self.wait_or_kill(wait_s)

    def ask_to_end(self, number: signal.Signals) -> None:
        process = self.process()
        if process is not None:
            _send(process, number)
            self.send(signal.SIGCONT)

    def wait_or_kill(self, wait_s: float) -> None:
        process = self.process()
        if process is not None and not self._has_ended(process, wait_s):
            self.kill()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """kill -9 of the process and all its children, and wait until they are gone."""
        parent = self.process()
        if parent is None:
            return
        # Stopped, it makes no more children while they are counted.
        _send(parent, signal.SIGSTOP)
        tree = self._tree()
        for process in tree:
            _send(process, signal.SIGKILL)
        self._has_ended(parent, _KILL_WAIT_S)
        psutil.wait_procs([one for one in tree if one.pid != parent.pid], timeout=_KILL_WAIT_S)

    def last_lines(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])
        except OSError:
            return ""

    def _tree(self) -> list[psutil.Process]:
        parent = self.process()
        if parent is None:
            return []
        try:
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _has_ended(self, process: psutil.Process, wait_s: float) -> bool:
        ours = _STARTED.get(process.pid)
        try:
            if ours is not None:
                ours.wait(wait_s)
            else:
                # Where process 1 awaits nobody, what another process started stays a zombie for ever.
                return _is_gone(process, wait_s)
        except subprocess.TimeoutExpired:
            return False
        _STARTED.pop(process.pid, None)
        return True


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _is_gone(process: psutil.Process, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
