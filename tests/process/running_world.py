"""`bulk-switch up` as a person runs it, with both FSPs in this process, and the means to kill, stop and hold its processes.

The FSPs outlive whatever happens to the switch, and judge every callback by the OpenAPI document.
"""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from bulk_api_adapter.admin.provision import provision_fsp
from db.engine import make_engine
from domain.money import UNITS
from operations.ports import free_ports
from operations.simulated_fsp import Bulk, SimulatedPayee, SimulatedPayer, callback_endpoints, served
from operations.simulated_transfer import Transfer
from operations.world_file import NoWorld, World, read_world
from tests.bulks import PAYEE, PAYER
from tests.fspiop_document import DOCUMENT, check_callback
from tests.operations.processes import DEADLINE_S, processes_of, start, wait_until
from tests.process.bulk_scripts import COVER, NET_DEBIT_CAP, Script
from tests.process.single_scripts import PlayedSingle, SingleScript

# Small batches, so that a bulk crosses many transactions, each with its moments to die in; short leases and pauses, so that
# what a dead deliverer had under way is soon tried again.
_SETTINGS = {
    "BULK_SWITCH_BATCH_ITEMS": "7",
    "BULK_SWITCH_CALLBACK_TIMEOUT_MS": "1500",
    "BULK_SWITCH_CALLBACK_LEASE_MS": "2500",
    "BULK_SWITCH_CALLBACK_FIRST_PAUSE_MS": "100",
    "BULK_SWITCH_CALLBACK_LONGEST_PAUSE_MS": "1000",
}
# An FSP tries for as long as the switch may be away.
_ATTEMPTS_MAX = 600
_RETRY_MS = 100
_HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Played:
    """A bulk that was posted, what it was to become, and how often its POST had to be repeated.

    `is_late` says that its time may have been over before the switch took it, be it at the first POST.
    """

    script: Script
    bulk: Bulk
    resends: int
    is_late: bool


class RunningWorld:
    """Used as a context: `up` is called on entry, and on exit nothing is left that runs."""

    def __init__(self, data_folder: Path, stream_url: str, **settings: str) -> None:
        self.data_folder = data_folder
        fspiop_port, admin_port = free_ports(2)
        self._settings = {
            **_SETTINGS,
            # Interpreters that start again and again are quicker with bytecode, whatever else they were told.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(data_folder.parent / "bytecode"),
            "BULK_SWITCH_STREAM_URL": stream_url,
            "BULK_SWITCH_FSPIOP_PORT": str(fspiop_port),
            "BULK_SWITCH_ADMIN_PORT": str(admin_port),
            **settings,
        }
        self.switch_url = f"http://127.0.0.1:{fspiop_port}"
        # What `up` has said.
        self.reports: list[str] = []
        self._up: subprocess.Popen[str] | None = None
        self._extras: list[subprocess.Popen[str]] = []
        self._engine: Engine | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "RunningWorld":
        try:
            check = check_callback if DOCUMENT.exists() else None
            self.payer = SimulatedPayer(PAYER, self.switch_url, check=check, connections_max=32)
            self._stack.callback(self.payer.close_client)
            self.payee = SimulatedPayee(
                PAYEE, self.switch_url, check=check, attempts_max=_ATTEMPTS_MAX, retry_ms=_RETRY_MS
            )
            urls = {fsp.name: self._stack.enter_context(served(fsp)) for fsp in (self.payer, self.payee)}
            self._posting = self._stack.enter_context(ThreadPoolExecutor(16, thread_name_prefix="payer"))
            self.up()
            for name, url in urls.items():
                endpoints = callback_endpoints(url)
                provision_fsp(self.engine, name, "USD", NET_DEBIT_CAP * UNITS, COVER * UNITS, endpoints)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    # --- the world and its processes ---

    def up(self) -> None:
        """Start the world, or start it again; returns when it is ready."""
        if self._engine is not None:
            # Its connections lead to a server that may be gone.
            self._engine.dispose()
        self._up = up = start("up", data_folder=self.data_folder, **self._settings)
        self._listen(up, self.reports)
        wait_until(lambda: up.poll() is not None or self._is_ready(up), "the start of the world")
        assert up.poll() is None, "".join(self.reports)
        self._engine = make_engine(self.world.database_url, application_name="tests", pool_size=5)

    @property
    def world(self) -> World:
        return read_world(self.data_folder)

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def start_extra(self, *command: str) -> subprocess.Popen[str]:
        """A further process of the switch, which nobody restarts; it finds the world by its data folder."""
        extra = start(*command, data_folder=self.data_folder, **self._settings)
        self._extras.append(extra)
        self._listen(extra, [])
        return extra

    def pid(self, name: str) -> int:
        return self.world.processes[name]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """kill -9, or another signal; returns the pid that got it."""
        pid = self.pid(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return pid

    def kill_after_its_next_commit(self, name: str, wait_s: float) -> int:
        """kill -9 of a handler in the moment in which its progress is seen: its outputs may not be on their way yet.

        When nothing is committed within `wait_s`, it is killed all the same.
        """
        query = text("SELECT sum(next_offset) FROM handler_progress WHERE handler = :name")
        pid, deadline = self.pid(name), time.monotonic() + wait_s
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            before = connection.execute(query, {"name": name}).scalar_one()
            while connection.execute(query, {"name": name}).scalar_one() == before and time.monotonic() < deadline:
                pass
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_restart(self, name: str, before: int) -> None:
        wait_until(lambda: self.world.processes.get(name, before) != before, f"the restart of {name}")

    def wait_until_working(self, name: str) -> None:
        """Until the process owns its partitions, listens, or (the deliverer) has connected to the database."""
        health = self.world.health.get(name)
        wait_until(lambda: is_healthy(health) if health else self._is_connected(name), f"the readiness of {name}")

    def wait_until_gone(self, pid: int) -> None:
        """Until the process has ended, be it a zombie that its parent has not asked for its status yet."""

        def is_gone() -> bool:
            try:
                return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                return True

        wait_until(is_gone, f"the end of process {pid}")

    @contextmanager
    def nobody_restarts(self) -> Iterator[None]:
        """Within the block the supervisor is held, so that whoever ends stays dead, and can be looked at."""
        assert self._up is not None
        self._up.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._up.send_signal(signal.SIGCONT)

    def kill_everything(self) -> set[int]:
        """kill -9 of the supervisor, its processes and every process of PostgreSQL; returns their pids."""
        up = self._up
        assert up is not None
        pids = set(processes_of(self.data_folder)) | _postgres_processes(self.data_folder / "postgres")
        assert set(self.world.processes.values()) < pids
        # The supervisor first, else it might start one of them again.
        for pid in sorted(pids, key=lambda pid: pid != up.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        up.wait(DEADLINE_S)
        for pid in pids:
            self.wait_until_gone(pid)
        return pids

    def kill_postgres(self) -> None:
        """kill -9 of every process of PostgreSQL, and of nothing else."""
        for pid in _postgres_processes(self.data_folder / "postgres"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Connections of the tests' own, which lead nowhere now.
        self.engine.dispose()

    def wait_for_postgres(self) -> None:
        wait_until(self._answers, "the return of PostgreSQL")

    # --- bulks ---

    def post(self, script: Script) -> "Future[Played]":
        """Post a bulk in the background, again and again until the switch takes it."""
        began_s = time.monotonic()
        bulk = self.payer.build(script.payee_fsp, **script.wishes())
        self.payee.behaviours[bulk.bulk_transfer_id] = script.behaviour
        return self._posting.submit(self._post, script, bulk, began_s)

    def post_single(self, script: SingleScript) -> "Future[PlayedSingle]":
        """Post a single transfer in the background, again and again until the switch takes it."""
        transfer = self.payer.build_transfer(PAYEE, amount=script.amount, expires_in_ms=script.expires_in_ms)
        self.payee.behaviours[transfer.transfer_id] = script.behaviour
        return self._posting.submit(self._post_single, script, transfer)

    def get(self, bulk_transfer_id: str) -> "Future[int]":
        """Ask for a bulk in the background; the result says how often it had to be asked."""
        return self._posting.submit(self._get, bulk_transfer_id)

    def _post(self, script: Script, bulk: Bulk, began_s: float) -> Played:
        attempts = self._until_taken(lambda: self.payer.post(bulk).status, f"the POST of {script.name}")
        took_ms = (time.monotonic() - began_s) * 1000
        return Played(script, bulk, attempts - 1, is_late=took_ms > script.expires_in_ms)

    def _post_single(self, script: SingleScript, transfer: Transfer) -> PlayedSingle:
        attempts = self._until_taken(
            lambda: self.payer.post_transfer(transfer).status, f"the POST of the single transfer {script.name}"
        )
        return PlayedSingle(script, transfer, attempts - 1)

    def _get(self, bulk_transfer_id: str) -> int:
        return self._until_taken(lambda: self.payer.get(bulk_transfer_id).status, "the GET")

    def _until_taken(self, send: Callable[[], int], what: str) -> int:
        status: int | None = None
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                status = send()
            except httpx.TransportError:
                status = None
            if status == httpx.codes.ACCEPTED:
                return attempt
            assert status in {None, httpx.codes.SERVICE_UNAVAILABLE}, f"{what} was answered {status}"
            time.sleep(random.uniform(0.5, 1.0) * _RETRY_MS / 1000)
        raise AssertionError(f"{what} was not taken in {_ATTEMPTS_MAX} attempts; the last one: {status}")

    # --- inside ---

    def _is_ready(self, up: "subprocess.Popen[str]") -> bool:
        with contextlib.suppress(NoWorld):
            # The file of a world that was killed is still there.
            return self.world.supervisor == up.pid and self.world.ready
        return False

    def _answers(self) -> bool:
        try:
            with self.engine.connect() as tx:
                return bool(tx.execute(text("SELECT 1")).scalar_one())
        except OperationalError:
            return False

    def _is_connected(self, name: str) -> bool:
        with self.engine.connect() as tx:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
            return bool(tx.execute(query, {"name": name}).scalar_one())

    def _listen(self, process: "subprocess.Popen[str]", lines: list[str]) -> None:
        """Take what it writes, in the background, so that it never waits for a reader."""

        def listen() -> None:
            assert process.stdout is not None
            with process.stdout:
                lines.extend(process.stdout)

        threading.Thread(target=listen, daemon=True).start()

    def _leave(self) -> None:
        try:
            if self._engine is not None:
                self._engine.dispose()
            if self._up is not None and self._up.poll() is None:
                self._up.send_signal(signal.SIGCONT)
                self._up.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._up.wait(DEADLINE_S)
        finally:
            for pid in processes_of(self.data_folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._extras:
                process.wait()
            self._stack.close()
            # Shown by pytest when the test has failed.
            print("".join(self.reports))


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_HEALTH_TIMEOUT_S).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _postgres_processes(folder: Path) -> set[int]:
    """The server and what it has forked."""
    server = int((folder / "postmaster.pid").read_text().split("\n", 1)[0])
    children = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == server:
                children.add(int(stat.parent.name))
    return {server} | children
