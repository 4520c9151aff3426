"""Whether a request was signed by the FSP that it says it is from; asked before anything is kept or published.

    OPTIONAL   a signature is checked when there is one
    REQUIRED   POST and PUT without one are refused too; a GET has no body, and the SDK signs none

A scheme that checks no signatures has no Authority. In this order: the signature is there (REQUIRED), its protected header
fits the request, the source has a key that made it. A failure is 3105; 2003 (503) when the keys cannot be read at all.
Which requests an FSP may make, signed or not, is for the handlers: a valid signature says only who asks.

A signature that no known key made is checked once more after the keys were read again: the key may have been registered
a moment ago. Long bodies are checked on threads: hashing a bulk of 1,000 takes milliseconds.
"""

from enum import Enum
from functools import partial
from typing import Final

from sqlalchemy import Engine

from bulk_api_adapter.bounded_threads import BoundedThreads
from bulk_api_adapter.fspiop.key_cache import KeyCache, KeyCacheLimits, KeysUnavailable
from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders
from schemas.fspiop.signatures import HEADER, Signature, read_signature, require_made_by

CHECKS_AT_ONCE_MAX: Final = 2
# Below this a check is shorter than the way to a thread and back.
ON_LOOP_BYTES_MAX: Final = 16_384


class Signatures(Enum):
    """What the scheme asks for where signatures are checked at all."""

    OPTIONAL = "optional"
    REQUIRED = "required"


class Authority:
    """Checks signatures with the participants' keys; lives on one event loop."""

    def __init__(self, engine: Engine, signatures: Signatures, limits: KeyCacheLimits | None = None) -> None:
        self._signatures = signatures
        self._cache = KeyCache(engine, limits or KeyCacheLimits())
        self._threads = BoundedThreads(CHECKS_AT_ONCE_MAX, "signatures")

    async def check(self, method: str, path: str, headers: RequestHeaders, body: bytes) -> None:
        """Raises Refusal with 3105 when the request is not what its source signed, 2003 when nobody can tell now.

        `path` is the request's own, without a query; `body` the bytes as they came, b"" for a GET.
        """
        if HEADER not in headers.kept and (self._signatures is Signatures.OPTIONAL or method == "GET"):
            return
        signature = read_signature(method, path, headers)
        try:
            try:
                await self._require_made_by(headers.source, signature, body)
            except Refusal:
                if not await self._cache.search():
                    raise
                await self._require_made_by(headers.source, signature, body)
        except KeysUnavailable:
            raise Refusal(
                ErrorCode.SERVICE_UNAVAILABLE, "the keys cannot be read now, send it again", reason="keys"
            ) from None

    def close(self) -> None:
        """End the threads."""
        self._cache.close()
        self._threads.close()

    async def _require_made_by(self, source: str, signature: Signature, body: bytes) -> None:
        check = partial(require_made_by, signature, body, await self._cache.keys_of(source))
        if len(body) <= ON_LOOP_BYTES_MAX:
            check()
        else:
            await self._threads.run(check)
