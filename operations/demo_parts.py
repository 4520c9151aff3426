"""What a demo on real parts has for itself: a database, a namespace of topics and a prefix of objects, all of one name.

So demos run again and again, and beside whatever else is on the same servers. Database and objects go when the demo ends.
What a killed demo has left, the next one removes: each demo holds an advisory lock on its name for as long as it lives, on
a connection of its own, so when nobody else holds that lock, nobody is there. Databases are the server's, but such a lock
is its database's: demos that were started from two databases would both get it. So it is looked for in all of them. Topics
stay, as ever; the broker removes their records by age, `scripts/services down --remove-data` everything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy import Connection, make_url, text

from operations.opening import make_object_store, opened_engine
from operations.settings import Settings, SettingsError

_NAME = "bulk_switch_demo_"
_LEFT_BEHIND = "SELECT datname FROM pg_database WHERE starts_with(datname, :name) ORDER BY datname"
_TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"
# PostgreSQL shows the locks of all databases, the key of such a one in two halves (objsubid 1: it is of one bigint).
_IS_HELD_BY_OTHERS = """
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid <> pg_backend_pid()
          AND CAST(classid AS bigint) << 32 | CAST(objid AS bigint) = hashtextextended(:name, 0)
    )
"""
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended(:name, 0))"
_PAGE_OBJECTS = 1_000


@contextmanager
def parts_of_its_own(settings: Settings) -> Iterator[Settings]:
    """The settings of a demo on the servers that these settings name; raises SettingsError when one is missing."""
    _require_real(settings)
    name = f"{_NAME}{uuid4().hex[:8]}"
    with opened_engine(settings, "demo", pool_size=1) as engine, engine.connect() as connection:
        # Every statement for itself: databases are not made in transactions, and the lock is the session's.
        session = connection.execution_options(isolation_level="AUTOCOMMIT")
        _clear_killed_demos(settings, session)
        session.execute(text(_TRY_LOCK), {"name": name})
        session.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield _named(settings, name)
        finally:
            _remove(settings, session, name)


def _require_real(settings: Settings) -> None:
    wanted = {
        "BULK_SWITCH_STREAM_URL (kafka://…)": settings.stream_url.startswith("kafka://"),
        "BULK_SWITCH_DATABASE_URL": bool(settings.database_url),
        "BULK_SWITCH_OBJECT_STORE_URL (s3://…)": settings.object_store_url.startswith("s3://"),
    }
    missing = [name for name, is_there in wanted.items() if not is_there]
    if missing:
        raise SettingsError(
            f"--real needs {', '.join(missing)}: start the services with `scripts/services up`, and this with "
            "`scripts/demo --real`, which asks them for it"
        )


def _named(settings: Settings, name: str) -> Settings:
    stream, objects = urlsplit(settings.stream_url), urlsplit(settings.object_store_url)
    database_url = make_url(settings.database_url).set(database=name).render_as_string(hide_password=False)
    return settings.model_copy(
        update={
            "database_url": database_url,
            "stream_url": stream._replace(path=f"/{name}").geturl(),
            "object_store_url": objects._replace(path=f"{objects.path.rstrip('/')}/{name}").geturl(),
            # The FSPs of a demo are on this machine.
            "callback_internal_addresses": settings.callback_internal_addresses or "loopback",
        }
    )


def _clear_killed_demos(settings: Settings, session: Connection) -> None:
    for name in session.execute(text(_LEFT_BEHIND), {"name": _NAME}).scalars().all():
        # Locked before it is looked for: of two who clear at once, one at least sees the other and leaves it be.
        if session.execute(text(_TRY_LOCK), {"name": name}).scalar_one():
            if not session.execute(text(_IS_HELD_BY_OTHERS), {"name": name}).scalar_one():
                _remove(settings, session, name)
            session.execute(text(_UNLOCK), {"name": name})


def _remove(settings: Settings, session: Connection, name: str) -> None:
    session.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    store = make_object_store(_named(settings, name))
    for prefix in ("requests/", "content/"):
        while page := store.page(prefix, "", _PAGE_OBJECTS):
            for stored in page:
                store.delete(stored.key)
