"""A database session of its own for a producer, a consumer or the clock, and who owns which partition.

A session outlives transactions: it holds advisory locks and listens. When its process dies, by whatever cause, the
server ends it, and with it the locks; so a partition is owned by exactly one live session, and by nobody after kill -9.

Advisory locks stand in the space of two int4, which pg_locks shows as (classid, objid):

    (lock_class("member", group, topic), instance)     this instance of the group is alive
    (lock_class("owner", group, topic), partition)     the holder reads this partition for the group

`lock_class` is the head of a SHA-256, so it is the same in every process and every release. Two names that fell on one
class would make their groups wait for each other, never read each other's partitions; at some dozens of classes among
2^32 that is one case in ten million.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stream.interface import StreamUnavailable

Session = psycopg.Connection[Any]

# The keepalives free the locks of a machine that vanished after about ten seconds; the system's default is two hours
# (on a Unix socket they mean nothing, and the kernel tells at once). The planner knows nothing of a log's size, which
# changes by the second: an index walk is always right here, and a plan with a sort would read a whole backlog per batch.
_SETTINGS = text(
    """
    SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false), set_config('enable_sort', 'off', false),
           set_config('enable_bitmapscan', 'off', false)
    """
)


@contextmanager
def unavailable(what: str) -> Iterator[None]:
    """Turn a database that is away, or gives up on a statement, into StreamUnavailable."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        raise StreamUnavailable(f"cannot {what}: {error}") from error
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError):
            raise StreamUnavailable(f"cannot {what}: {error.orig}") from error
        raise


def open_session(engine: Engine) -> Session:
    """A connection in autocommit that the engine's pool no longer counts; raises StreamUnavailable."""
    with unavailable("open a session"):
        connection = engine.connect()
        try:
            # Through SQLAlchemy, so that a connection that died in the pool makes it drop all of that age.
            connection.execute(_SETTINGS)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        session = connection.connection.driver_connection
        assert isinstance(session, psycopg.Connection)
        connection.detach()
        session.autocommit = True
        return session


def listen(session: Session, channel: str) -> None:
    session.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))


def wait_for_notifications(session: Session, timeout_s: float) -> list[str]:
    """The payloads that came since the last call, or else the first one that comes in time; [] at the timeout."""
    return [notification.payload for notification in session.notifies(timeout=max(0.0, timeout_s), stop_after=1)]


def lock_class(kind: str, group: str, topic: str) -> int:
    """The first int4 of the advisory locks of one kind of one group on one topic."""
    name = "\0".join(("bulk-switch stream", kind, group, topic))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)


_TRY_LOCKS = "SELECT number FROM unnest(CAST(%s AS int4[])) AS number WHERE pg_try_advisory_lock(%s, number)"
_UNLOCK = "SELECT pg_advisory_unlock(%s, number) FROM unnest(CAST(%s AS int4[])) AS number"
_HELD = """
    SELECT CAST(objid AS int8) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = CAST(CAST(%s AS int4) AS oid)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """


# Who owns a partition is also the member of its group: one session holds both locks.
_OWNERS = """
    SELECT CAST(owner.objid AS int8), CAST(member.objid AS int8)
    FROM pg_locks AS owner JOIN pg_locks AS member USING (locktype, database, objsubid, granted, pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 2
      AND owner.classid = CAST(CAST(:owner AS int4) AS oid) AND member.classid = CAST(CAST(:member AS int4) AS oid)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """


def read_owners(engine: Engine, group: str, topic: str) -> dict[int, int]:
    """Per partition the instance whose session owns it for the group."""
    classes = {"owner": lock_class("owner", group, topic), "member": lock_class("member", group, topic)}
    with unavailable(f"ask who reads {topic}"), engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text(_OWNERS), classes)}


class GroupLocks:
    """The advisory locks that one session holds for one group on one topic."""

    def __init__(self, session: Session, group: str, topic: str) -> None:
        self._session = session
        self._member = lock_class("member", group, topic)
        self._owner = lock_class("owner", group, topic)

    def try_join(self, instance: int) -> bool:
        """Whether this session is now the instance; no while the session of a dead predecessor still ends."""
        return bool(self._try_locks(self._member, [instance]))

    def instances(self) -> list[int]:
        """The instances that are alive, in ascending order."""
        return sorted(row[0] for row in self._session.execute(_HELD, (self._member,)))

    def try_own(self, partitions: Iterable[int]) -> list[int]:
        """Those of the partitions that were free and are now owned. Not for partitions that are owned already."""
        return self._try_locks(self._owner, sorted(partitions))

    def release(self, partitions: Iterable[int]) -> None:
        self._session.execute(_UNLOCK, (self._owner, list(partitions)))

    def _try_locks(self, kind: int, numbers: list[int]) -> list[int]:
        if not numbers:
            return []
        return [row[0] for row in self._session.execute(_TRY_LOCKS, (numbers, kind))]
