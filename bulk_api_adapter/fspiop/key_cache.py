"""The participants' public keys in the edge's memory: all of them, read in one statement, never written.

What is answered is never older than `refresh_ms`, so a revoked key stops working within it. When a request needs a key that
is not here (an unknown FSP, a key just registered) the keys are read again, at most once per `search_ms` for all such
requests together: a stranger who invents names or signatures cannot make the edge hammer the database. Requests that wait
for the same reading share it. While the database is away, and what was read is too old, no signature can be checked:
KeysUnavailable, and the request is answered with 503, because an old key may be a revoked one.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from bulk_api_adapter.bounded_threads import BoundedThreads
from db.keys import CountingKey, counting_keys
from schemas.fspiop.signatures import SourceKey

logger = logging.getLogger(__name__)


class KeysUnavailable(Exception):
    """The database does not say which keys count."""


@dataclass(frozen=True, slots=True)
class KeyCacheLimits:
    """How old an answer may be, how often it is looked for what is missing, how long the database has to answer."""

    refresh_ms: int = 5_000
    search_ms: int = 500
    read_wait_ms: int = 2_000


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """`begins` and `ends` are on the monotonic clock, so that a clock that is set does not bring a key back."""

    source_key: SourceKey
    begins: float
    ends: float


class KeyCache:
    """Lives on one event loop; `monotonic` is in seconds."""

    def __init__(
        self, engine: Engine, limits: KeyCacheLimits, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._monotonic = monotonic
        self._threads = BoundedThreads(1, "keys")
        self._keys: dict[str, list[_CachedKey]] = {}
        # When the newest reading that succeeded began, and when the newest one of any kind did.
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def keys_of(self, source: str) -> list[SourceKey]:
        """The FSP's keys that count now; raises KeysUnavailable."""
        if self._monotonic() - self._read_at > self._limits.refresh_ms / 1000:
            await self._read()
        now = self._monotonic()
        return [key.source_key for key in self._keys.get(source, ()) if key.begins <= now < key.ends]

    async def search(self) -> bool:
        """Read the keys again, if that was not done within `search_ms`; whether it was done. Raises KeysUnavailable."""
        if self._monotonic() - self._tried_at <= self._limits.search_ms / 1000 and self._reading is None:
            return False
        await self._read()
        return True

    def close(self) -> None:
        self._threads.close()

    async def _read(self) -> None:
        """Begin a reading, or wait for the one that is under way."""
        if self._reading is None:
            if self._monotonic() - self._tried_at <= self._limits.search_ms / 1000 and self._tried_at > self._read_at:
                raise KeysUnavailable("the last reading failed a moment ago")
            self._tried_at = self._monotonic()
            self._reading = asyncio.create_task(self._read_all(self._tried_at))
            self._reading.add_done_callback(self._ended)
        # A request that is cancelled must not take the reading away from the others.
        await asyncio.shield(self._reading)

    def _ended(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled() and (error := reading.exception()) is not None:
            logger.warning("the participants' keys cannot be read: %s", error)

    async def _read_all(self, began: float) -> None:
        try:
            async with asyncio.timeout(self._limits.read_wait_ms / 1000):
                found = await self._threads.run(self._load)
        except (SQLAlchemyError, TimeoutError) as error:
            raise KeysUnavailable(str(error).partition("\n")[0] or "no answer in time") from error
        by_name: dict[str, list[_CachedKey]] = defaultdict(list)
        for key, source_key in found:
            ends = float("inf") if key.until_ms is None else began + key.until_ms / 1000
            by_name[key.participant].append(_CachedKey(source_key, began + key.from_ms / 1000, ends))
        self._keys, self._read_at = by_name, began

    def _load(self) -> list[tuple[CountingKey, SourceKey]]:
        with self._engine.connect() as connection:
            rows: Sequence[CountingKey] = counting_keys(connection)
        return [(row, SourceKey(row.kid, _verifying_key(row.public_key))) for row in rows]


def _verifying_key(der: bytes) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    key = load_der_public_key(der)
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey), "no other key is registered"
    return key
