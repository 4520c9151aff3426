"""Instance numbers: a process takes the lowest number of its handler that nobody holds, by an advisory lock.

The number makes Kafka's group.instance.id, so that a process that starts again after a kill -9 gets its partitions back at
once. The lock belongs to a connection of its own and goes with it: no number is ever held by a dead process. A process may
live on without that connection; then another one may hold its number, so it asks now and then (`held`), and gives up what it
does when there is no answer. Until it asks, the fence of handler_progress keeps the two apart.
"""

import zlib
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, text

INSTANCES_MAX = 1_000

# The server gives a number back about ten seconds after the machine that held it has vanished, instead of two hours.
_KEEPALIVES = text("""
    SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false)
""")

_INSTANCES = text("""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = CAST(CAST(:class AS int4) AS oid)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


class NoFreeSlot(Exception):
    """Every instance number of this handler is taken."""


def lock_class(purpose: str) -> int:
    """The first half of a two-part advisory lock: a stable signed 32-bit number for a text."""
    unsigned = zlib.crc32(purpose.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


_RUNNING = text("""
    SELECT wanted.handler, CAST(held.objid AS int8)
    FROM unnest(CAST(:handlers AS text[]), CAST(:classes AS int4[])) AS wanted(handler, class)
    JOIN pg_locks held ON held.classid = CAST(wanted.class AS oid) AND held.locktype = 'advisory' AND held.objsubid = 2
         AND held.granted AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY wanted.handler, held.objid
""")


def running_instances(tx: Connection, handlers: Iterable[str]) -> dict[str, list[int]]:
    """The instances of these handlers that are alive, by handler; a handler that does not run is missing."""
    names = list(handlers)
    classes = [lock_class(f"instance:{name}") for name in names]
    found: dict[str, list[int]] = {}
    for handler, number in tx.execute(_RUNNING, {"handlers": names, "classes": classes}):
        found.setdefault(handler, []).append(number)
    return found


class InstanceSlot:
    """A held instance number; `close`, or the end of the process, gives it back."""

    def __init__(self, engine: Engine, handler: str) -> None:
        """Raises NoFreeSlot."""
        self._connection: Connection = engine.connect()
        self._class = lock_class(f"instance:{handler}")
        try:
            self._connection.execute(_KEEPALIVES)
            self.number = self._take(handler)
        except BaseException:
            self.close()
            raise

    def held(self) -> int:
        """How many instances of the handler there are, this one included; raises OperationalError when it is lost."""
        count: int = self._connection.execute(_INSTANCES, {"class": self._class}).scalar_one()
        self._connection.commit()
        return count

    def _take(self, handler: str) -> int:
        for number in range(INSTANCES_MAX):
            held = self._connection.execute(
                text("SELECT pg_try_advisory_lock(:class, :number)"), {"class": self._class, "number": number}
            ).scalar_one()
            # End the transaction but keep the connection: the lock is the session's.
            self._connection.commit()
            if held:
                return number
        raise NoFreeSlot(f"{handler}: all {INSTANCES_MAX} instance numbers are taken")

    def close(self) -> None:
        # The connection must not go back into a pool with the lock still held.
        self._connection.invalidate()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
