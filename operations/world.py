"""The embedded world: what `bulk-switch up` starts, watches and stops.

In order: the data folder is locked, so that no two worlds share it · PostgreSQL from the wheel, unless a database URL is
given · migrations · topics from the catalogue · the processes: the FSPIOP edge, the admin app, a process per group of
handlers, the deliverer, the exporter · `world.json`, for the other commands. The processes get their settings as environment
variables, the same that they would be given in production. Whatever dies is started again, PostgreSQL included; after
a kill -9 of everything the next `up` goes on where the database says. SIGTERM, SIGINT and SIGHUP stop all of it.
"""

import fcntl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from db.migrate import migrate
from operations import embedded_postgres
from operations.embedded_postgres import EmbeddedPostgresError
from operations.opening import make_topics, opened_engine, provision_object_store
from operations.ports import free_ports, trouble_with_port
from operations.settings import Settings, environment_of
from operations.supervisor import ProcessDescription, Supervisor
from operations.world_file import World, remove_world, write_targets, write_world

_LOOK_AFTER_S = 0.05
_LOOK_AFTER_POSTGRES_S = 1.0
# Eighteen interpreters may start on two cores that others use, too: a minute is not always enough.
_READY_WAIT_S = 120.0
_HEALTH_TIMEOUT_S = 2.0
# Where no library of the edge needs to be asked whether it is safe.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class WorldError(Exception):
    """The world cannot be started; the text says why."""


def run_world(
    settings: Settings, stop: threading.Event, report: Callable[[str], None], on_ready: Callable[[World], None]
) -> None:
    """Run the world until `stop` is set; `report` is given lines about what happens, `on_ready` what runs where.

    Called on the main thread: Linux ties the processes to the thread that starts them. Raises WorldError, SettingsError,
    EmbeddedPostgresError, HopelessProcess, and what the database or the stream raise when they are not there.
    """
    _require_guarded_admin(settings)
    data_folder = settings.data_folder.absolute()
    data_folder.mkdir(parents=True, exist_ok=True)
    with locked(data_folder):
        _require_free_port("FSPIOP", settings.fspiop_host, settings.fspiop_port)
        _require_free_port("admin", settings.admin_host, settings.admin_port)
        with _database(settings, data_folder, report) as database_url:
            # The same settings for every process, with nothing left that depends on where a process was started.
            own = {
                "data_folder": data_folder,
                "database_url": database_url,
                "object_store_url": settings.object_store_absolute_url,
                # Said before the database has a URL, which is what tells an embedded world from a real one.
                "callback_internal_addresses": settings.internal_addresses,
                "hub_key_file": str(Path(settings.hub_key_file).absolute()) if settings.hub_key_file else "",
            }
            postgres_folder = None if settings.database_url else data_folder / "postgres"
            _run_processes(settings.model_copy(update=own), postgres_folder, stop, report, on_ready)


def _run_processes(
    settings: Settings,
    postgres_folder: Path | None,
    stop: threading.Event,
    report: Callable[[str], None],
    on_ready: Callable[[World], None],
) -> None:
    prepare(settings)
    # One per group of handlers, then the deliverer's and the exporter's.
    health_ports = free_ports(len(settings.groups) + 2)
    supervisor = Supervisor(
        processes_of(settings, health_ports), environment_of(settings), settings.data_folder / "logs", report
    )
    running = _Running(settings, supervisor, health_urls(settings, health_ports), report, on_ready)
    try:
        supervisor.start()
        running.watch(stop, postgres_folder)
    finally:
        remove_world(settings.data_folder)
        supervisor.stop(settings.stop_wait_ms / 1000)


def prepare(settings: Settings) -> None:
    """Migrate the database, make the bucket and the topics that are missing."""
    provision_object_store(settings)
    with opened_engine(settings, "migrate", pool_size=2) as engine:
        migrate(engine)
        make_topics(settings, engine)


def processes_of(settings: Settings, health_ports: Sequence[int]) -> list[ProcessDescription]:
    """One line per process of the world; all but the two apps answer on a health port of their own."""
    *handlers_ports, deliverer_port, exporter_port = health_ports
    return [
        _process("api", "api"),
        _process("admin", "admin"),
        *(
            _process(name, "handler", *group, "--health-port", str(port))
            for name, group, port in zip(_group_names(settings), settings.groups, handlers_ports, strict=True)
        ),
        _process("deliverer", "deliver", "--health-port", str(deliverer_port)),
        _process("exporter", "exporter", "--port", str(exporter_port)),
    ]


def _process(name: str, *arguments: str) -> ProcessDescription:
    return ProcessDescription(name, (sys.executable, "-m", "operations", *arguments))


def _group_names(settings: Settings) -> list[str]:
    """A process of one handler is called like it."""
    return [
        group[0] if len(group) == 1 else f"handlers-{number}" for number, group in enumerate(settings.groups, start=1)
    ]


def health_urls(settings: Settings, health_ports: Sequence[int]) -> dict[str, str]:
    """Where each process says that it is well."""
    names = [*_group_names(settings), "deliverer", "exporter"]
    urls = {"api": fspiop_url(settings), "admin": admin_url(settings)}
    urls |= {name: f"http://127.0.0.1:{port}" for name, port in zip(names, health_ports, strict=True)}
    return {name: f"{url}/health" for name, url in urls.items()}


def metrics_urls(health: Mapping[str, str]) -> dict[str, str]:
    """Where each process tells Prometheus about itself: beside its health."""
    return {name: f"{url.removesuffix('/health')}/metrics" for name, url in health.items()}


def fspiop_url(settings: Settings) -> str:
    return f"http://{_reachable(settings.fspiop_host)}:{settings.fspiop_port}"


def admin_url(settings: Settings) -> str:
    return f"http://{_reachable(settings.admin_host)}:{settings.admin_port}"


def _reachable(host: str) -> str:
    """How this machine reaches an app that listens on `host`, which may mean every address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound here
    return f"[{host}]" if ":" in host else host


class _Running:
    """The world while it runs."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        health: dict[str, str],
        report: Callable[[str], None],
        on_ready: Callable[[World], None],
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._health = health
        self._report = report
        self._on_ready = on_ready
        self._ready = False
        self._client = httpx.Client(timeout=_HEALTH_TIMEOUT_S, trust_env=False)

    def watch(self, stop: threading.Event, postgres_folder: Path | None) -> None:
        """Until `stop`; raises WorldError when the processes are not well in time."""
        ready_by = time.monotonic() + _READY_WAIT_S
        look_at_postgres_at = 0.0
        self._write()
        while not stop.wait(_LOOK_AFTER_S):
            changed = self._supervisor.look_after()
            became_ready = False
            if not self._ready:
                trouble = self._trouble()
                if trouble is None:
                    self._ready = became_ready = changed = True
                elif time.monotonic() > ready_by:
                    raise WorldError(f"after {_READY_WAIT_S:.0f} s {trouble}; see {self._settings.data_folder}/logs")
            if changed:
                self._write()
            if became_ready:
                self._on_ready(self._describe())
            if postgres_folder is not None and time.monotonic() >= look_at_postgres_at:
                _look_after_postgres(postgres_folder, self._report)
                look_at_postgres_at = time.monotonic() + _LOOK_AFTER_POSTGRES_S

    def _trouble(self) -> str | None:
        """What is not well yet; None when everything is."""
        for name, url in self._health.items():
            try:
                answer = self._client.get(url)
            except httpx.TransportError as error:
                return f"{name} does not answer: {error}"
            if answer.status_code != httpx.codes.OK:
                return f"{name} is not ready: {answer.text}"
        return None

    def _write(self) -> None:
        write_world(self._settings.data_folder, self._describe())
        write_targets(self._settings.data_folder, metrics_urls(self._health))

    def _describe(self) -> World:
        return World(
            database_url=self._settings.database_url,
            stream_url=self._settings.stream_url,
            object_store_url=self._settings.object_store_absolute_url,
            fspiop_url=fspiop_url(self._settings),
            admin_url=admin_url(self._settings),
            internal_addresses=self._settings.internal_addresses,
            supervisor=self._supervisor.pid,
            processes=self._supervisor.pids(),
            logs={name: str(log) for name, log in self._supervisor.logs().items()},
            health=self._health,
            metrics=metrics_urls(self._health),
            ready=self._ready,
        )


@contextmanager
def locked(data_folder: Path) -> Iterator[None]:
    """Hold the data folder; the lock goes with the process, however it ends. Raises WorldError when it is held."""
    with (data_folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorldError(f"a world already runs in {data_folder}") from None
        yield


@contextmanager
def _database(settings: Settings, data_folder: Path, report: Callable[[str], None]) -> Iterator[str]:
    if settings.database_url:
        yield settings.database_url
        return
    report("starting PostgreSQL")
    try:
        yield embedded_postgres.start(data_folder / "postgres")
    finally:
        embedded_postgres.stop(data_folder / "postgres")


def _look_after_postgres(folder: Path, report: Callable[[str], None]) -> None:
    if embedded_postgres.is_running(folder):
        return
    report("PostgreSQL has ended; starting it again")
    try:
        embedded_postgres.start(folder)
    except EmbeddedPostgresError as error:
        # Its old processes may still be ending; the next look tries again.
        report(str(error))


def _require_guarded_admin(settings: Settings) -> None:
    """Before anything is started; the admin process asks the same, but by then it would be one of many that fail."""
    if settings.admin_host not in _LOOPBACK:
        from operations.edge_process import require_guarded_admin

        require_guarded_admin(settings)


def _require_free_port(what: str, host: str, port: int) -> None:
    trouble = trouble_with_port(host, port)
    if trouble is not None:
        raise WorldError(
            f"the {what} app cannot listen on {host}:{port} ({trouble}); choose another port with "
            f"--{what.lower()}-port or BULK_SWITCH_{what.upper()}_PORT"
        )
