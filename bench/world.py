"""What is measured: `bulk-switch up` as a person starts it, in a fresh data folder, with real processes.

It is given what it stands on (bench/beneath.py), and everything ends with the run. The
settings of the environment hold (BULK_SWITCH_BATCH_ITEMS, BULK_SWITCH_HANDLER_GROUPS, …), so that they can be compared;
those that say where things are do not.
"""

import os
import re
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

from bench.beneath import Beneath
from bench.failure import BenchFailed
from operations.ports import free_ports
from operations.settings.types import PREFIX
from operations.supervisor import SUPERVISOR_PID
from operations.world_file import NoWorld, World, read_world

_ROOT = Path(__file__).parents[1]
_PLACES = re.compile(
    r"(DATABASE|STREAM|OBJECT_STORE|DATA|SERVICES|KAFKA)_(|.*_)"
    r"(URL|PASSWORD|KEY|FILE|PROTOCOL|MECHANISM|USERNAME|FOLDER|DATA|FACTOR)"
)
# Longer than the world itself waits (operations/world.py), which then says what is not well.
_READY_WAIT_S = 150.0
_STOP_WAIT_S = 30.0
_POLL_S = 0.05
_LOG_LINES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class RunningWorld:
    """`pids` are the switch's processes and what they stand on but PostgreSQL, whose postmaster is `postmaster`.

    `database_url` has the password in it, if there is one, and `settings` are those that reach the world's parts.
    """

    world: World
    pids: Mapping[str, int]
    postmaster: int
    database_url: str
    settings: Mapping[str, str]


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
def running_world(folder: Path, beneath: Beneath) -> Iterator[RunningWorld]:
    """`bulk-switch up` in this folder until the block ends.

    Raises BenchFailed. Called on the main thread, which Linux ties the world's life to.
    """
    data_folder, log = folder / "data", folder / "up.log"
    fspiop_port, admin_port = free_ports(2)
    arguments = {
        "data-folder": data_folder,
        "stream-url": beneath.stream_url,
        "fspiop-port": fspiop_port,
        "admin-port": admin_port,
    }
    environment = {name: value for name, value in os.environ.items() if not _says_where(name)}
    # Not on the command line, where everybody sees them: there are secrets among them.
    environment |= {f"{PREFIX}{name.upper()}": value for name, value in beneath.settings.items()}
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
        pids = {**world.processes, "supervisor": world.supervisor, **beneath.pids}
        settings = {"data_folder": str(data_folder), "stream_url": beneath.stream_url, **beneath.settings}
        database_url = settings.setdefault("database_url", world.database_url)
        yield RunningWorld(world, pids, beneath.postmaster or _postmaster_in(data_folder), database_url, settings)
    finally:
        _end(up)


def _says_where(name: str) -> bool:
    return name.startswith(PREFIX) and _PLACES.fullmatch(name.removeprefix(PREFIX)) is not None


def _postmaster_in(data_folder: Path) -> int:
    return int((data_folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


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
