"""The switch's processes, each with a supervisor of its own, so that each can be killed, held, and replaced by another.

One thread starts them, looks after them and sends the signals: Linux ties a child's life to the thread that started it,
and only who reaps a process knows that its number is still its own. The others hand their wishes to that thread.

    edge, deliverer-1, deliverer-2, handlers-<group>-<worker>

Every handler runs in two workers, so that partitions wander from one to the other while one of them is held. Each process
gets its settings as environment variables, as in production.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from operations.ports import free_ports
from operations.settings import Settings, environment_of
from operations.supervisor import HopelessProcess, ProcessDescription, Supervisor
from tests.operations.processes import wait_until

EDGE: Final = "edge"
_LOOK_AFTER_S = 0.02
_STOP_WAIT_S = 15.0
_HEALTH_TIMEOUT_S = 2.0
# The module that is `bulk-switch`.
RELEASE: Final = "operations"


@dataclass(frozen=True, slots=True)
class Described:
    """A process: its arguments to `bulk-switch`, the handlers it runs (if any), where it says that it is well (if so)."""

    name: str
    arguments: tuple[str, ...]
    handlers: tuple[str, ...] = ()
    health_url: str | None = None


def describe(settings: Settings, workers: int) -> list[Described]:
    """The processes of a world in so many workers; the edge, which listens on a port, is one."""
    ports = iter(free_ports(workers * len(settings.groups)))
    edge_url = f"http://{settings.fspiop_host}:{settings.fspiop_port}/health"
    described = [Described(EDGE, ("api",), health_url=edge_url)]
    for worker in range(1, workers + 1):
        described.append(Described(f"deliverer-{worker}", ("deliver",)))
        for number, group in enumerate(settings.groups, start=1):
            port = next(ports)
            arguments = ("handler", *group, "--health-port", str(port))
            url = f"http://127.0.0.1:{port}/health"
            described.append(Described(f"handlers-{number}-{worker}", arguments, tuple(group), url))
    return described


class Processes:
    """Used as a context: on exit nothing is left that runs. `reports` is what the supervisors have said."""

    def __init__(
        self,
        described: Sequence[Described],
        settings: Settings,
        log_folder: Path,
        variables: Mapping[str, str],
        release_of: Callable[[Described], str] = lambda _: RELEASE,
    ) -> None:
        self.described = {one.name: one for one in described}
        self.reports: list[str] = []
        self._environment = {**environment_of(settings), **variables}
        self._log_folder = log_folder
        self._releases = {one.name: release_of(one) for one in described}
        self._supervisors: dict[str, Supervisor] = {}
        self._wishes: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="processes")

    def __enter__(self) -> "Processes":
        self._thread.start()
        for name in self.described:
            self._ask(partial(self._start, name))
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def handlers(self) -> list[str]:
        """The processes that run handlers."""
        return sorted(name for name, one in self.described.items() if one.handlers)

    @property
    def deliverers(self) -> list[str]:
        return sorted(name for name in self.described if name.startswith("deliverer-"))

    def pid(self, name: str) -> int | None:
        """The process of this moment; None while it waits to be started again."""
        return self._supervisors[name].pids().get(name)

    def send(self, name: str, number: signal.Signals) -> int:
        """Send a signal as soon as the process runs; returns the pid that got it."""
        wait_until(lambda: self.pid(name) is not None, f"the restart of {name}")
        sent: int | None = None
        while sent is None:
            sent = self._ask(lambda: self._send(name, number))
        return sent

    def replace(self, name: str, release: str) -> None:
        """End a process in good order, and start it as of another release."""
        self._ask(lambda: self._replace(name, release))

    def wait_until_healthy(self, names: Sequence[str] | None = None) -> None:
        """Until each of these, or every process, says that it is well."""
        urls = {name: one.health_url for name, one in self.described.items() if names is None or name in names}
        for name, url in urls.items():
            if url is not None:
                wait_until(partial(is_healthy, url), f"the readiness of {name}", self.last_words)

    def last_words(self) -> str:
        """What was reported last, and the ends of the logs: for who has waited in vain."""
        ends = {log.stem: self.log(log.stem).splitlines()[-3:] for log in sorted(self._log_folder.glob("*.log"))}
        return "\n".join([f"reports: {self.reports[-5:]}", *(f"{name}: {end}" for name, end in ends.items())])

    def log(self, name: str) -> str:
        return (self._log_folder / f"{name}.log").read_text(errors="replace")

    # --- on the thread ---

    def _keep(self) -> None:
        try:
            while not self._end.is_set():
                try:
                    wish, future = self._wishes.get(timeout=_LOOK_AFTER_S)
                except queue.Empty:
                    self._look_after()
                else:
                    try:
                        future.set_result(wish())
                    except Exception as error:
                        future.set_exception(error)
        finally:
            # All at once, because each takes its time.
            for supervisor in self._supervisors.values():
                for pid in supervisor.pids().values():
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGTERM)
            for supervisor in self._supervisors.values():
                supervisor.stop(_STOP_WAIT_S)

    def _look_after(self) -> None:
        for supervisor in self._supervisors.values():
            try:
                supervisor.look_after()
            except HopelessProcess as hopeless:
                # It is started again all the same, because what it cannot do without may be what was killed.
                self.reports.append(f"hopeless: {hopeless}")

    def _ask(self, wish: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self._wishes.put((wish, future))
        return future.result()

    def _start(self, name: str) -> None:
        one = self.described[name]
        command = (sys.executable, "-m", self._releases[name], *one.arguments)
        supervisor = Supervisor(
            [ProcessDescription(name, command)], self._environment, self._log_folder, self.reports.append
        )
        self._supervisors[name] = supervisor
        supervisor.start()

    def _send(self, name: str, number: signal.Signals) -> int | None:
        pid = self.pid(name)
        if pid is not None:
            # It has not been reaped, so the number is its own, be it of a zombie.
            os.kill(pid, number)
        return pid

    def _replace(self, name: str, release: str) -> None:
        self._supervisors[name].stop(_STOP_WAIT_S)
        self._releases[name] = release
        self._start(name)


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_HEALTH_TIMEOUT_S, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
