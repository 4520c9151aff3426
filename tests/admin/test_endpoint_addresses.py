"""An endpoint that names an internal address is refused at once, and the scheme's setting says which are allowed."""

import ipaddress
import random

import pytest
from sqlalchemy import Engine

from schemas.callback_addresses import (
    ANY_ADDRESS,
    LOOPBACK,
    ONLY_EXTERNAL,
    AddressRefused,
    AllowedAddresses,
    allowed_addresses,
)
from tests.admin.client import AdminClient, assert_refused, audit_of

TYPE = "FSPIOP_CALLBACK_URL_BULK_TRANSFER_POST"

INTERNAL = [
    *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "0.1.2.3"),
    *("100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1"),
    # An IPv4 address inside an IPv6 one: mapped, compatible, NAT64, 6to4, Teredo.
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1"),
    *("64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:a00:1::1"),
]
EXTERNAL = ["8.8.8.8", "93.184.216.34", "223.255.255.254", "2001:4860:4860::8888", "2606:4700::1111"]


@pytest.mark.parametrize("address", INTERNAL)
def test_an_internal_address_is_allowed_by_its_network_alone(address: str) -> None:
    found = ipaddress.ip_address(address)
    with pytest.raises(AddressRefused, match="is internal and not in CALLBACK_INTERNAL_ADDRESSES"):
        ONLY_EXTERNAL.require(found)
    ANY_ADDRESS.require(found)


@pytest.mark.parametrize("address", EXTERNAL)
def test_an_external_address_needs_no_permission(address: str) -> None:
    ONLY_EXTERNAL.require(ipaddress.ip_address(address))


def test_a_network_allows_itself_and_nothing_beside_it() -> None:
    source = random.Random(7)
    allowed = allowed_addresses("10.1.0.0/16, fd00:1::/32")
    for _ in range(500):
        inside = ipaddress.IPv4Address(int(ipaddress.IPv4Address("10.1.0.0")) + source.randrange(1 << 16))
        outside = ipaddress.IPv4Address(int(ipaddress.IPv4Address("10.2.0.0")) + source.randrange(1 << 16))
        allowed.require(inside)
        with pytest.raises(AddressRefused):
            allowed.require(outside)
    allowed.require(ipaddress.ip_address("fd00:1::5"))
    with pytest.raises(AddressRefused):
        allowed.require(ipaddress.ip_address("fd00:2::5"))
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        LOOPBACK.require(ipaddress.ip_address(address))
    with pytest.raises(AddressRefused):
        LOOPBACK.require(ipaddress.ip_address("169.254.169.254"))


def test_the_setting_is_a_word_or_networks() -> None:
    assert allowed_addresses("none") == ONLY_EXTERNAL == AllowedAddresses()
    assert (allowed_addresses("loopback"), allowed_addresses("any")) == (LOOPBACK, ANY_ADDRESS)
    for wrong in ("all", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8;fd00::/8", "localhost"):
        with pytest.raises(ValueError, match="must be none, loopback, any, or networks"):
            allowed_addresses(wrong)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1:8080", "[::1]:4001", "[fe80::1%25eth0]", "[::ffff:10.0.0.1]", "169.254.169.254"),
        # What the resolver takes for an address, whatever it looks like.
        *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "user@127.0.0.1", "127.0.0.1."),
        *("localhost", "localhost.", "db.localhost", "LOCALHOST:3000"),
    ],
)
def test_an_internal_address_is_refused_when_it_is_registered(
    client: AdminClient, engine: Engine, fsp: str, host: str
) -> None:
    body = {"type": TYPE, "value": f"http://{host}/bulkTransfers"}
    refused = client.post(f"/participants/{fsp}/endpoints", body)
    assert_refused(refused, "3100", "is internal and not in CALLBACK_INTERNAL_ADDRESSES")
    assert client.get(f"/participants/{fsp}/endpoints").json == []
    assert [audit for audit in audit_of(engine) if audit.action == "set_endpoint"] == []


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (TYPE, "https://93.184.216.34/bulkTransfers"),
        (TYPE, "http://payerfsp.example:4001/bulkTransfers"),
        (TYPE, "http://[nonsense"),
        # §11.8: any type is taken; an address that no callback goes to is no way into the hub's network.
        ("NET_DEBIT_CAP_ADJUSTMENT_EMAIL", "ops@127.0.0.1"),
    ],
)
def test_other_endpoints_are_taken(client: AdminClient, fsp: str, type_: str, value: str) -> None:
    assert client.post(f"/participants/{fsp}/endpoints", {"type": type_, "value": value}).status == 201
