"""One attempt to deliver a callback: the address, the bytes, one HTTP request, and what came of it.

In this order: the FSP's endpoint is made into an address, the body is read from the object store, the bound of the
callback is looked at a last time, and the request is sent exactly as it was written down: its own headers, Host and
Content-Length, nothing that a client library would like to add, so that every attempt has the same bytes. Redirects are
not followed. The status decides; the answer's body is read for the connection's sake only, up to a bound, and thrown away.

Whatever goes wrong becomes the text of a failed attempt: one FSP's trouble is nobody else's. The whole attempt has a
deadline, so it ends before its lease does.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from db.deliveries import ERROR_LENGTH_MAX, ClaimedDelivery
from domain.delivery import EXPIRED_REASON, Callback, is_delivered
from object_store.interface import ObjectStore, ObjectStoreError
from schemas.callbacks import UnusableEndpoint, callback_url, http_method

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Bounds of one attempt. `attempt_timeout_ms` holds for all of it, the others for its parts."""

    connections_max: int = 64
    connect_timeout_ms: int = 3_000
    read_timeout_ms: int = 8_000
    attempt_timeout_ms: int = 10_000
    # Shorter than the 5 s after which common servers close an idle connection, lest a callback meets a closing one.
    keepalive_ms: int = 2_000
    response_body_max_bytes: int = 65_536
    response_body_wait_ms: int = 500
    object_threads: int = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """The FSP's status, or why there was none."""

    url: str | None
    status: int | None
    error: str | None
    duration_ms: int

    @property
    def delivered(self) -> bool:
        return is_delivered(self.status)


class _NotSent(Exception):
    """The request was not made; the text says why."""


class DeliveryClient:
    """Sends callbacks, many at a time, on one event loop."""

    def __init__(self, object_store: ObjectStore, limits: ClientLimits) -> None:
        self._object_store = object_store
        self._limits = limits
        # Threads of their own: a slow object store must not hold up the statements of the deliverer.
        self._threads = ThreadPoolExecutor(limits.object_threads, thread_name_prefix="object")
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(limits.read_timeout_ms / 1000, connect=limits.connect_timeout_ms / 1000),
            limits=httpx.Limits(
                max_connections=limits.connections_max,
                max_keepalive_connections=limits.connections_max,
                keepalive_expiry=limits.keepalive_ms / 1000,
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def attempt(self, claimed: ClaimedDelivery) -> Answer:
        """Make one attempt; never raises but when it is cancelled."""
        began = time.monotonic()
        url: str | None = None
        status: int | None = None
        error: str | None = None
        try:
            async with asyncio.timeout(self._limits.attempt_timeout_ms / 1000):
                url = self._url(claimed)
                body = await self._body(claimed)
                if claimed.left_ms is not None and _milliseconds_since(began) >= claimed.left_ms:
                    raise _NotSent(EXPIRED_REASON)
                status = await self._send(claimed, url, body)
        except _NotSent as refusal:
            error = str(refusal)
        except TimeoutError:
            error = f"no answer within {self._limits.attempt_timeout_ms} ms"
        except httpx.HTTPError as failure:
            error = f"{type(failure).__name__}: {failure}"
        except Exception as failure:
            # A bug, or an address or header that the client library chokes on: it must not stop the other callbacks.
            log.exception("delivery %d: the attempt failed unexpectedly", claimed.delivery_id)
            error = f"{type(failure).__name__}: {failure}"
        return Answer(url, status, None if error is None else error[:ERROR_LENGTH_MAX], _milliseconds_since(began))

    @staticmethod
    def _url(claimed: ClaimedDelivery) -> str:
        try:
            return callback_url(
                Callback(claimed.callback), claimed.fsp, claimed.endpoint, claimed.bulk_transfer_id.bytes
            )
        except ValueError as error:
            kind = "" if isinstance(error, UnusableEndpoint) else "no address: "
            raise _NotSent(f"{kind}{error}") from error

    async def _body(self, claimed: ClaimedDelivery) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._object_store.get, claimed.content)
        except ObjectStoreError as error:
            raise _NotSent(f"no body: {type(error).__name__}: {error}") from error

    async def _send(self, claimed: ClaimedDelivery, url: str, body: bytes) -> int:
        # A request made by itself carries no header of the client's: no Accept, no User-Agent, no Accept-Encoding.
        request = httpx.Request(http_method(Callback(claimed.callback)), url, headers=claimed.headers, content=body)
        request.extensions["timeout"] = self._client.timeout.as_dict()
        response = await self._client.send(request, stream=True)
        try:
            await self._discard(response)
        finally:
            await response.aclose()
        return response.status_code

    async def _discard(self, response: httpx.Response) -> None:
        """Read a short body to its end, so that the connection can be used again; leave a long or slow one."""
        size = 0
        try:
            async with asyncio.timeout(self._limits.response_body_wait_ms / 1000):
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > self._limits.response_body_max_bytes:
                        return
        except (TimeoutError, httpx.HTTPError):
            # The status has been said; what is wrong with the rest is not the callback's concern.
            return


def _milliseconds_since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
