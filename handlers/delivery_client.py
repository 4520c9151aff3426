"""One attempt to deliver a callback: the address, the bytes, one HTTP request, and what came of it.

In this order: the FSP's endpoint is made into an address, the body is read from the object store, the bound of the
callback is looked at a last time, and the request is sent exactly as it was written down: its own headers, Host and
Content-Length, nothing that a client library would like to add, so that every attempt has the same bytes.

    headers written down    the hub says it: signed with the hub's key, where it has one. Then the body goes out in the
                            form that every validator rebuilds (`schemas.fspiop.signatures.canonical`)
    no headers              an FSP says it: `content` names its request, whose headers and body go out as they came in,
                            under that FSP's own signature

What an FSP can do to the sender is bounded: internal addresses are refused before a connection is made
(`handlers.guarded_network`), redirects are not followed, connecting, each read and the attempt as a whole have their times,
the head of an answer is at most 100 KiB (h11's bound), its body is read for the connection's sake only, up to a bound, and
thrown away. The status decides.

Whatever goes wrong becomes the text of a failed attempt: one FSP's trouble is nobody else's, and an object store that is
away is no FSP's (`is_ours`). The whole attempt has a deadline, so it ends before its lease does.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

import httpcore
import httpx

from db.deliveries import ERROR_LENGTH_MAX, ClaimedDelivery
from domain.delivery import EXPIRED_REASON, Callback, Resource, is_delivered
from handlers.guarded_network import GuardedNetwork
from handlers.tracing import Tracing
from object_store.envelope import CorruptRequest, unpack_request
from object_store.interface import ObjectStore, ObjectStoreError, ObjectStoreUnavailable
from schemas.callback_addresses import ONLY_EXTERNAL, AddressRefused, AllowedAddresses
from schemas.callbacks import UnusableEndpoint, callback_url, http_method
from schemas.fspiop.signatures import HEADER as SIGNATURE_HEADER
from schemas.fspiop.signatures import Signer, canonical

log = logging.getLogger(__name__)

_HTTP_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpx.InvalidURL,
)


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
    lookups_max: int = 16
    # Internal addresses that callbacks may go to.
    allowed: AllowedAddresses = field(default=ONLY_EXTERNAL)


@dataclass(frozen=True, slots=True)
class Answer:
    """The FSP's status, or why there was none."""

    url: str | None
    status: int | None
    error: str | None
    duration_ms: int
    # The request could not be made because of us: that says nothing about the FSP.
    is_ours: bool = False

    @property
    def delivered(self) -> bool:
        return is_delivered(self.status)


@dataclass(frozen=True, slots=True)
class _Message:
    """What an attempt sends, whenever it is made."""

    headers: Mapping[str, str]
    body: bytes


class _NotSent(Exception):
    """The request was not made; the text says why."""


class _StoreIsAway(_NotSent):
    """The body cannot be read now."""


class DeliveryClient:
    """Sends callbacks, many at a time, on one event loop."""

    def __init__(
        self,
        object_store: ObjectStore,
        limits: ClientLimits,
        signer: Signer | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._object_store = object_store
        self._limits = limits
        self._signer = signer
        self._tracing = tracing
        # Threads of their own: a slow object store must not hold up the statements of the deliverer.
        self._threads = ThreadPoolExecutor(limits.object_threads, thread_name_prefix="object")
        self._network = GuardedNetwork(limits.allowed, limits.lookups_max)
        # The pool that httpx is made of: it takes a way of connecting of our own, and knows no redirects or proxies.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=limits.connections_max,
            max_keepalive_connections=limits.connections_max,
            keepalive_expiry=limits.keepalive_ms / 1000,
            network_backend=self._network,
        )
        read_s = limits.read_timeout_ms / 1000
        self._timeout = {
            "connect": limits.connect_timeout_ms / 1000,
            "read": read_s,
            "write": read_s,
            "pool": read_s,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()
        self._network.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def attempt(self, claimed: ClaimedDelivery) -> Answer:
        """Make one attempt; never raises but when it is cancelled."""
        began, began_ns = time.monotonic(), time.time_ns()
        message: _Message | None = None
        url: str | None = None
        status: int | None = None
        error: str | None = None
        is_ours = False
        try:
            async with asyncio.timeout(self._limits.attempt_timeout_ms / 1000):
                url = self._url(claimed)
                message = await self._message(claimed)
                if claimed.left_ms is not None and _milliseconds_since(began) >= claimed.left_ms:
                    raise _NotSent(EXPIRED_REASON)
                status = await self._send(claimed, url, message)
        except (_NotSent, AddressRefused) as refusal:
            error, is_ours = str(refusal), isinstance(refusal, _StoreIsAway)
        except TimeoutError:
            is_ours = message is None
            what = "body" if is_ours else "answer"
            error = f"no {what} within {self._limits.attempt_timeout_ms} ms"
        except _HTTP_ERRORS as failure:
            error = f"{type(failure).__name__}: {failure}"
        except Exception as failure:
            # A bug, or an address or header that the client library chokes on: it must not stop the other callbacks.
            log.exception(
                "delivery %d: the attempt failed unexpectedly", claimed.delivery_id, extra=ids_of_delivery(claimed)
            )
            error = f"{type(failure).__name__}: {failure}"
        if self._tracing is not None:
            sent = message.headers if message is not None else claimed.headers or {}
            self._tracing.attempted(claimed, sent, began_ns, status, error)
        error = None if error is None else error[:ERROR_LENGTH_MAX]
        return Answer(url, status, error, _milliseconds_since(began), is_ours)

    @staticmethod
    def _url(claimed: ClaimedDelivery) -> str:
        try:
            return callback_url(
                Resource(claimed.resource),
                Callback(claimed.callback),
                claimed.fsp,
                claimed.endpoint,
                claimed.entity_id.bytes,
            )
        except ValueError as error:
            kind = "" if isinstance(error, UnusableEndpoint) else "no address: "
            raise _NotSent(f"{kind}{error}") from error

    async def _message(self, claimed: ClaimedDelivery) -> _Message:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(self._make_message, claimed))
        except ObjectStoreUnavailable as error:
            raise _StoreIsAway(f"no body: {error}") from error
        except (ObjectStoreError, CorruptRequest) as error:
            raise _NotSent(f"no body: {type(error).__name__}: {error}") from error

    def _make_message(self, claimed: ClaimedDelivery) -> _Message:
        """On a thread: reading, and signing a bulk, take milliseconds."""
        content = self._object_store.get(claimed.content)
        if claimed.headers is None:
            request = unpack_request(content)
            headers = dict(request.headers)
            if claimed.callback != Callback.POST:
                # An HTTP client adds it by itself, and no PUT has one (reference §11.12); no signature covers it.
                headers.pop("accept", None)
            return _Message({**headers, "fspiop-source": request.source}, request.body)
        if self._signer is None:
            return _Message(claimed.headers, content)
        body = canonical(content)
        return _Message({**claimed.headers, SIGNATURE_HEADER: self._signer.sign(claimed.headers, body)}, body)

    async def _send(self, claimed: ClaimedDelivery, url: str, message: _Message) -> int:
        # A request made by itself carries no header of the client's: no Accept, no User-Agent, no Accept-Encoding.
        request = httpx.Request(
            http_method(Callback(claimed.callback)), url, headers=message.headers, content=message.body
        )
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.content,
                extensions={"timeout": self._timeout},
            )
        )
        try:
            await self._discard(response)
        finally:
            await response.aclose()
        return response.status

    async def _discard(self, response: httpcore.Response) -> None:
        """Read a short body to its end, so that the connection can be used again; leave a long or slow one."""
        size = 0
        try:
            async with asyncio.timeout(self._limits.response_body_wait_ms / 1000):
                async for chunk in response.aiter_stream():
                    size += len(chunk)
                    if size > self._limits.response_body_max_bytes:
                        return
        except (TimeoutError, *_HTTP_ERRORS):
            # The status has been said; what is wrong with the rest is not the callback's concern.
            return


def ids_of_delivery(claimed: ClaimedDelivery) -> dict[str, object]:
    """What log lines about a callback say it is about."""
    entity = "bulk_transfer_id" if claimed.resource == Resource.BULK_TRANSFERS else "transfer_id"
    return {"delivery_id": claimed.delivery_id, "fsp": claimed.fsp, entity: str(claimed.entity_id)}


def _milliseconds_since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
