"""Instance numbers: a process takes the lowest number of its handler that nobody holds, by an advisory lock.

The number makes Kafka's group.instance.id, so that a process that starts again after a kill -9 gets its partitions back at
once. The lock belongs to a connection of its own and goes with it: no number is ever held by a dead process.
"""

import zlib
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, text

INSTANCES_MAX = 1_000


class NoFreeSlot(Exception):
    """Every instance number of this handler is taken."""


def lock_class(purpose: str) -> int:
    """The first half of a two-part advisory lock: a stable signed 32-bit number for a text."""
    unsigned = zlib.crc32(purpose.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


class InstanceSlot:
    """A held instance number; `close`, or the end of the process, gives it back."""

    def __init__(self, engine: Engine, handler: str) -> None:
        """Raises NoFreeSlot."""
        self._connection: Connection = engine.connect()
        self.number = self._take(lock_class(f"instance:{handler}"), handler)

    def _take(self, class_: int, handler: str) -> int:
        for number in range(INSTANCES_MAX):
            held = self._connection.execute(
                text("SELECT pg_try_advisory_lock(:class, :number)"), {"class": class_, "number": number}
            ).scalar_one()
            # End the transaction but keep the connection: the lock is the session's.
            self._connection.commit()
            if held:
                return number
        self.close()
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
