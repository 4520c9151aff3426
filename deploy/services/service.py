"""What every service can do, whatever it is made of.

Starting: the folder is locked · ports are chosen or read · data and configuration are made (`_prepare`) · each process that
does not run is started · questions are asked until the service has answered (`check`), or a process has ended, or the time
is over. A start that fails stops what it has started.
"""

import fcntl
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from deploy.services.daemon import Daemon
from deploy.services.errors import ServiceError
from deploy.services.ports import HOST, kept_ports
from operations.ports import trouble_with_port

_POLL_S = 0.1
# Arguments: the process that is watched, then the pid files of what ends with it.
_WATCH = """
while kill -0 "$0" 2>/dev/null; do sleep 1; done
for file; do [ -f "$file" ] && kill -9 "$(cut -d' ' -f1 "$file")"; done
"""


class Service(ABC):
    """A service in a folder; nothing is touched before `start`."""

    name: ClassVar[str]
    # How long it may take to answer after its start; after a kill -9 it may have to recover first.
    start_wait_s: ClassVar[float] = 90.0
    stop_wait_s: ClassVar[float] = 20.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # An offset at which a server listens once more.
    _also_listens_at: ClassVar[int] = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._daemons = {name: Daemon(self.folder, name) for name in self._daemon_names()}
        self._watch = Daemon(self.folder, "watch")
        self._ends_with: int | None = None

    def end_with(self, pid: int) -> None:
        """From the next start on: kill -9 of everything within a second or two of that process's end, however it ends.

        For tests, the bench and whatever else starts services for itself and may be killed.
        """
        self._ends_with = pid

    def start(self) -> None:
        """Return when the service is well; at once when it is already. Raises ServiceError."""
        with self._locked():
            self._start(self._daemon_names())

    def stop(self) -> None:
        """End it in good order; what it has acknowledged stays."""
        with self._locked():
            self._stop(self._daemon_names())
            self._watch.kill()

    def restart(self) -> None:
        """Stop and start, with nobody in between. Raises ServiceError."""
        with self._locked():
            self._stop(self._daemon_names())
            self._start(self._daemon_names())

    def kill(self) -> None:
        """kill -9 of every process."""
        for daemon in self._daemons.values():
            daemon.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay, answers do not come."""
        for daemon in self._daemons.values():
            daemon.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: returns before the service is well.

        After a pause that was longer than its session, a broker is no part of its cluster for a moment, and `check` says so.
        """
        for daemon in self._daemons.values():
            daemon.send(signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether every process of it is there; `check` says whether it answers."""
        return all(daemon.is_running() for daemon in self._daemons.values())

    def pids(self) -> list[int]:
        """Every process of it, children included, that runs now."""
        return [pid for daemon in self._daemons.values() for pid in daemon.pids()]

    @property
    @abstractmethod
    def url(self) -> str:
        """What the switch is told; raises ServiceError before the first start."""

    @abstractmethod
    def check(self) -> None:
        """Ask a real question; raises ServiceError when the answer is not good."""

    @abstractmethod
    def _daemon_names(self) -> list[str]: ...

    @abstractmethod
    def _port_names(self) -> list[str]: ...

    @abstractmethod
    def _prepare(self) -> None:
        """Make data and configuration that are missing."""

    @abstractmethod
    def _launch(self, name: str, daemon: Daemon) -> None:
        """Start one process."""

    def _ports(self) -> dict[str, int]:
        """The ports by name; raises ServiceError before the first start."""
        if not (self.folder / "ports.json").exists():
            raise ServiceError(f"{self.name} in {self.folder} was never started")
        return kept_ports(self.folder, self._port_names(), self._also_listens_at)

    def _start(self, names: Sequence[str]) -> None:
        started = [name for name in names if not self._daemons[name].is_running()]
        if started:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept_ports(self.folder, self._port_names(), self._also_listens_at)
            self._prepare()
            self._require_free_ports(started)
        try:
            for name in started:
                self._launch(name, self._daemons[name])
            if started and self._ends_with is not None and not self._watch.is_running():
                files = [str(self.folder / f"{name}.pid") for name in self._daemon_names()]
                self._watch.start(["/bin/sh", "-c", _WATCH, str(self._ends_with), *files])
            self._wait_until_well(names)
        except OSError as error:
            self._stop(started)
            raise ServiceError(f"{self.name} cannot be started: {error}") from error
        except BaseException:
            self._stop(started)
            raise

    def _ports_of(self, name: str) -> dict[str, int]:
        """The ports on which one process listens."""
        return self._ports()

    def _require_free_ports(self, names: Sequence[str]) -> None:
        for daemon_name in names:
            for name, port in self._ports_of(daemon_name).items():
                trouble = trouble_with_port(HOST, port)
                if trouble:
                    raise ServiceError(
                        f"{self.name} cannot listen on its {name} port {port}: {trouble}; another program has taken it "
                        f"meanwhile (remove {self.folder}/ports.json to have new ports chosen)"
                    )

    def _wait_until_well(self, names: Sequence[str]) -> None:
        deadline = time.monotonic() + self.start_wait_s
        while True:
            try:
                self.check()
                return
            except ServiceError as error:
                for name in names:
                    if not self._daemons[name].is_running():
                        raise ServiceError(self._trouble(name, "has ended")) from None
                if time.monotonic() > deadline:
                    text = f"does not answer after {self.start_wait_s:.0f} s ({error})"
                    raise ServiceError(self._trouble(names[0], text)) from None
            time.sleep(_POLL_S)

    def _trouble(self, name: str, what: str) -> str:
        daemon = self._daemons[name]
        return f"{self.name}: {name} {what}, see {daemon.log}\n{daemon.last_lines()}".rstrip()

    def _stop(self, names: Sequence[str]) -> None:
        """All are asked first: the nodes of a cluster that end one after the other would wait for each other."""
        for name in names:
            self._daemons[name].ask_to_end(self.stop_signal)
        deadline = time.monotonic() + self.stop_wait_s
        for name in names:
            self._daemons[name].wait_or_kill(max(0.0, deadline - time.monotonic()))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time, whichever process asks for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
