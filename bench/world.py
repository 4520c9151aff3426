"""What is measured: `bulk-switch up` as a person starts it, in a fresh data folder, with real processes.

With Kafka, `scripts/services` starts a broker on a data folder of its own first, and everything ends with the run. The
settings of the environment hold (BULK_SWITCH_BATCH_ITEMS, BULK_SWITCH_HANDLER_GROUPS, …), so that they can be compared;
those that say where things are do not.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from operations.ports import free_ports
from operations.settings.types import PREFIX
from operations.supervisor import SUPERVISOR_PID
from operations.world_file import NoWorld, World, read_world

_ROOT = Path(__file__).parents[1]
_PLACES = ("DATABASE_URL", "STREAM_URL", "OBJECT_STORE_URL", "DATA_FOLDER", "SERVICES_DATA")
_READY_WAIT_S = 90.0
_STOP_WAIT_S = 30.0
_POLL_S = 0.05
# The first start on a machine fetches the broker's jars.
_SERVICES_WAIT_S = 240.0
_LOG_LINES_SHOWN = 20


class BenchFailed(Exception):
    """There is no figure; the text says why."""


@dataclass(frozen=True, slots=True)
class RunningWorld:
    """`pids` are the switch's processes and what they stand on but PostgreSQL, whose postmaster is `postmaster`."""

    world: World
    pids: Mapping[str, int]
    postmaster: int


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A folder for one run, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-bench-"))
    # PostgreSQL, which as root runs as a user of its own, has to pass.
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def kafka_broker(folder: Path) -> Iterator[tuple[str, int]]:
    """A broker with its data in this folder: its stream URL and its process id; raises BenchFailed."""
    try:
        url = _services(folder, "up", "kafka")
        yield url, int((folder / "kafka" / "pid").read_text())
    finally:
        _services(folder, "down")


def _services(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(_ROOT / "scripts" / "services"), *arguments],
        env={**os.environ, f"{PREFIX}SERVICES_DATA": str(folder)},
        capture_output=True,
        text=True,
        timeout=_SERVICES_WAIT_S,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(done.stderr.strip() or f"scripts/services {' '.join(arguments)} failed")
    return done.stdout.strip()


@contextmanager
def running_world(folder: Path, stream_url: str, beside: Mapping[str, int]) -> Iterator[RunningWorld]:
    """`bulk-switch up` in this folder until the block ends; `beside` are further processes to be measured with it.

    Raises BenchFailed. Called on the main thread, which Linux ties the world's life to.
    """
    data_folder, log = folder / "data", folder / "up.log"
    fspiop_port, admin_port = free_ports(2)
    arguments = {
        "data-folder": data_folder,
        "stream-url": stream_url,
        "fspiop-port": fspiop_port,
        "admin-port": admin_port,
    }
    environment = {name: value for name, value in os.environ.items() if name.removeprefix(PREFIX) not in _PLACES}
    # When the bench is killed, the world goes with it.
    environment |= {SUPERVISOR_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        up = subprocess.Popen(
            [sys.executable, "-m", "operations", "up", *(f"--{name}={value}" for name, value in arguments.items())],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        world = _wait_until_ready(up, data_folder, log)
        postmaster = int((data_folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
        pids = {**world.processes, "supervisor": world.supervisor, **beside}
        yield RunningWorld(world, pids, postmaster)
    finally:
        _end(up)


def _wait_until_ready(up: "subprocess.Popen[bytes]", data_folder: Path, log: Path) -> World:
    deadline = time.monotonic() + _READY_WAIT_S
    while time.monotonic() < deadline:
        if up.poll() is not None:
            break
        try:
            world = read_world(data_folder)
        except NoWorld:
            pass
        else:
            if world.ready:
                return world
        time.sleep(_POLL_S)
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    raise BenchFailed("\n".join(["the switch did not become ready:", *lines]))


def _end(up: "subprocess.Popen[bytes]") -> None:
    up.send_signal(signal.SIGTERM)
    try:
        up.wait(_STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        up.kill()
        up.wait()


def require_same_processes(running: RunningWorld, data_folder: Path) -> None:
    """Raises BenchFailed when the supervisor had to start a process again: its CPU seconds would be missing."""
    now = read_world(data_folder).processes
    started_again = [name for name, pid in now.items() if running.pids[name] != pid]
    if started_again:
        raise BenchFailed(f"started again during the run: {', '.join(started_again)}; see the logs")
