"""To which addresses callbacks may go: to any of the public internet, and to internal ones only where the scheme says so.

An endpoint is set by operators, but its name is looked up in a DNS that an FSP may hold, and the deliverer stands inside the
hub's network: without this an FSP could let the hub send requests to its own database or to a cloud's metadata service.
Internal is whatever is not globally routable: loopback, private, link-local (169.254.169.254 too), shared, reserved,
unspecified, multicast; an IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64) counts as itself.
"""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where an IPv4 address is the end of an IPv6 one, and packets to it may be translated (RFC 6052, RFC 8215).
_EMBEDDING_NETWORKS = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/96"))
_LOCAL_NAMES = ("localhost", ".localhost")


class AddressRefused(Exception):
    """A callback must not go to this address; the text says which and why."""


@dataclass(frozen=True, slots=True)
class AllowedAddresses:
    """The internal addresses that callbacks may go to, besides all others."""

    networks: tuple[IPNetwork, ...] = ()

    def require(self, address: IPAddress) -> None:
        """Raises AddressRefused."""
        for one in (address, *_embedded(address)):
            if is_internal(one) and not any(one in network for network in self.networks):
                raise AddressRefused(f"{address} is internal and not in CALLBACK_INTERNAL_ADDRESSES")

    def require_literal(self, url: str) -> None:
        """Look at an endpoint whose host is an address, in whatever notation; names are looked up when it is used.

        Raises AddressRefused.
        """
        try:
            host = (urlsplit(url).hostname or "").rstrip(".")
        except ValueError:
            # No address can be made of it, so nothing is ever sent there.
            return
        if host == _LOCAL_NAMES[0] or host.endswith(_LOCAL_NAMES[1]):
            self.require(ipaddress.IPv4Address("127.0.0.1"))
        elif (address := _literal(host)) is not None:
            self.require(address)


ONLY_EXTERNAL = AllowedAddresses()
LOOPBACK = AllowedAddresses((ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128")))
ANY_ADDRESS = AllowedAddresses((ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0")))

_NAMED = {"none": ONLY_EXTERNAL, "loopback": LOOPBACK, "any": ANY_ADDRESS}


def allowed_addresses(text: str) -> AllowedAddresses:
    """`none`, `loopback`, `any`, or networks like `10.0.0.0/8,fd00::/8`; raises ValueError with a text for the person."""
    if text in _NAMED:
        return _NAMED[text]
    try:
        return AllowedAddresses(tuple(ipaddress.ip_network(part.strip()) for part in text.split(",")))
    except ValueError as error:
        raise ValueError(f"must be none, loopback, any, or networks like 10.0.0.0/8,fd00::/8: {error}") from None


def is_internal(address: IPAddress) -> bool:
    """Whether the address, taken by itself, is none of the public internet."""
    return (
        not address.is_global
        or address.is_multicast
        or address.is_reserved
        or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )


def _embedded(address: IPAddress) -> Iterator[ipaddress.IPv4Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _EMBEDDING_NETWORKS):
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


def _literal(host: str) -> IPAddress | None:
    """The address that a host is; the resolver takes 127.1, 0x7f000001 and 2130706433 for addresses too."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None
