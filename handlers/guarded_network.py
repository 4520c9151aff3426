"""Connections to FSPs that cannot be led into the hub's own network.

A host is looked up once per connection, every address that it has is checked, and the connection is made to one of the
addresses that were checked: between the check and the use no second look-up can answer something else. Host and the TLS
server name stay those of the URL, because only the connecting happens here, below HTTP and TLS. One address that is not
allowed refuses the host as a whole: a name that points inside and outside is nobody's honest endpoint.

Look-ups have threads of their own, and callbacks to one host share a look-up: an FSP whose DNS hangs holds one thread.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from schemas.callback_addresses import AllowedAddresses, IPAddress

# The address family, kind, protocol, canonical name and socket address, as socket.getaddrinfo gives them.
_AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """How the HTTP client reaches FSPs; lives on one event loop."""

    def __init__(self, allowed: AllowedAddresses, lookups_max: int) -> None:
        self._allowed = allowed
        self._backend = httpcore.AnyIOBackend()
        self._threads = ThreadPoolExecutor(lookups_max, thread_name_prefix="lookup")
        self._lookups: dict[str, asyncio.Future[list[IPAddress]]] = {}

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises AddressRefused, httpcore.ConnectError, httpcore.ConnectTimeout."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._look_up(host)
                for address in addresses:
                    self._allowed.require(address)
                return await self._connect(addresses, port, timeout, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"no connection to {host}:{port} in time") from None

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("callbacks go over TCP")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Start no more look-ups; does not wait for those that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _connect(
        self,
        addresses: list[IPAddress],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        """To the first address that answers; each of them has its share of the time."""
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(str(address), port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(str(addresses[-1]), port, share, local_address, socket_options)

    async def _look_up(self, host: str) -> list[IPAddress]:
        """The host's addresses, at least one, in the resolver's order."""
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            pass
        lookup = self._lookups.get(host)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = self._lookups[host] = loop.run_in_executor(self._threads, _addresses, host)
            lookup.add_done_callback(lambda done: self._forget(host, done))
        # An attempt whose time is up must not take the look-up away from the others.
        return await asyncio.shield(lookup)

    def _forget(self, host: str, done: "asyncio.Future[list[IPAddress]]") -> None:
        del self._lookups[host]
        if not done.cancelled():
            # Looked at, so that a failure that nobody waits for any more is not reported as lost.
            done.exception()


def _addresses(host: str) -> list[IPAddress]:
    try:
        found: list[_AddressInfo] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} cannot be looked up: {error}") from None
    # A link-local address may carry its zone.
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    if not addresses:
        raise httpcore.ConnectError(f"{host} has no address")
    return list(dict.fromkeys(addresses))
