"""An FSP's endpoint cannot lead the deliverer into the hub's own network, nor hold it longer than its times allow."""

import asyncio
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine

from handlers.deliverer import DelivererSettings, DelivererThread
from handlers.delivery_client import ClientLimits
from handlers.guarded_network import GuardedNetwork
from object_store.content import put_content
from object_store.folder import FolderObjectStore
from schemas.callback_addresses import LOOPBACK, ONLY_EXTERNAL, AddressRefused, AllowedAddresses, allowed_addresses
from tests.callbacks.callback_rows import PUT_BODY, SETTINGS, add_participant, final, rows, wait_until, write
from tests.callbacks.receiver import OK, RawRequest, Receiver, answer

HOST = "fsp.example"


class Resolver:
    """Stands for the DNS: each name has a list of answers, and the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.asked: list[str] = []
        self.wait: dict[str, threading.Event] = {}
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: str, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host not in self._answers:
            return self._real(host, port, *arguments, **options)
        self.asked.append(host)
        if host in self.wait:
            self.wait[host].wait(30)
        given = self._answers[host]
        found = given.pop(0) if len(given) > 1 else given[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [entry for address in found for entry in self._real(address, port, *arguments, **options)]


def settings(allowed: AllowedAddresses, **limits: int) -> DelivererSettings:
    return replace(SETTINGS, client=ClientLimits(allowed=allowed, **limits))


def attempted(engine: Engine, count: int = 1) -> dict[str, Any]:
    wait_until(engine, "SELECT count(*) >= :count FROM delivery_attempt", count=count)
    return rows(engine, "SELECT url, status, error FROM delivery_attempt ORDER BY delivery_id, attempt")[count - 1]


@pytest.mark.parametrize("allowed", [ONLY_EXTERNAL, allowed_addresses("10.0.0.0/8,::1/128")])
@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_no_notation_of_an_internal_address_is_connected_to(
    engine: Engine, object_store: FolderObjectStore, allowed: AllowedAddresses, host: str
) -> None:
    with Receiver() as internal, DelivererThread(engine, object_store, settings(allowed)):
        add_participant(engine, "payerfsp", f"http://{host}:{internal.port}")
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        attempt = attempted(engine)
    assert internal.requests == []
    assert attempt["status"] is None
    assert attempt["error"].endswith(" is internal and not in CALLBACK_INTERNAL_ADDRESSES")


@pytest.mark.parametrize(
    "found",
    [
        *(["127.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]),
        # One of several is enough: nobody's honest name points inside and outside.
        *(["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"]),
    ],
)
def test_no_name_leads_to_an_internal_address(
    engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    Resolver(monkeypatch, fsp_example=[found])
    with Receiver() as internal, DelivererThread(engine, object_store, settings(ONLY_EXTERNAL)):
        add_participant(engine, "payerfsp", f"http://{HOST}:{internal.port}")
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        attempt = attempted(engine)
    assert internal.requests == []
    assert attempt["error"].endswith(" is internal and not in CALLBACK_INTERNAL_ADDRESSES")


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(
    engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DNS rebinding: the first answer is allowed, every later one would lead to another machine.
    resolver = Resolver(monkeypatch, fsp_example=[["127.0.0.1"], ["127.0.0.2"]])
    with Receiver() as fsp, DelivererThread(engine, object_store, settings(allowed_addresses("127.0.0.1/32"))):
        add_participant(engine, "payerfsp", f"http://{HOST}:{fsp.port}")
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        (request,) = fsp.wait_for(1)
        wait_until(engine, "SELECT count(*) = 1 FROM delivery_attempt")
    assert resolver.asked == [HOST], "looked up once for one connection"
    assert request.headers["host"] == f"{HOST}:{fsp.port}", "the FSP sees the name of its endpoint"


def test_a_redirect_into_the_network_is_not_followed(engine: Engine, object_store: FolderObjectStore) -> None:
    with Receiver() as internal, Receiver() as fsp:
        for status in (301, 302, 303, 307, 308):
            head = f"HTTP/1.1 {status} Moved\r\nlocation: {internal.url}/\r\ncontent-length: 0\r\n\r\n"
            fsp.respond = answer(head.encode())
            name = f"fsp{status}"
            add_participant(engine, name, fsp.url)
            write(engine, final(name, put_content(object_store, PUT_BODY)))
            with DelivererThread(engine, object_store, SETTINGS):
                wait_until(engine, "SELECT count(*) > 0 FROM delivery_attempt WHERE status = :status", status=status)
    assert internal.requests == []


def test_an_endless_head_is_cut_off_and_its_connection_closed(engine: Engine, object_store: FolderObjectStore) -> None:
    sent = 0

    def respond(_: RawRequest, connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            sent += connection.send(b"x-more: " + b"x" * 8_000 + b"\r\n")

    with Receiver(respond) as fsp, DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        attempt = attempted(engine)
        fsp.respond = answer(OK)
    assert attempt["status"] is None
    assert attempt["error"].startswith("RemoteProtocolError: ")
    assert sent < 50_000_000


@pytest.mark.parametrize(
    ("first", "piece"), [(b"HTTP/1.1 200 OK\r\nx: ", b"y"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n")]
)
def test_a_head_that_drips_for_ever_ends_with_the_attempts_time(
    engine: Engine, object_store: FolderObjectStore, first: bytes, piece: bytes
) -> None:
    ended = threading.Event()

    def respond(_: RawRequest, connection: socket.socket) -> None:
        connection.sendall(first)
        # Each piece comes well within the read timeout.
        while not ended.wait(0.01):
            connection.sendall(piece)

    with (
        Receiver(respond) as fsp,
        DelivererThread(engine, object_store, settings(LOOPBACK, attempt_timeout_ms=300, read_timeout_ms=200_000)),
    ):
        add_participant(engine, "payerfsp", fsp.url)
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        # On a busy machine an attempt's time may end before its request is sent.
        wait_until(engine, "SELECT count(*) > 0 FROM delivery_attempt WHERE error = 'no answer within 300 ms'")
        ended.set()
        fsp.respond = answer(OK)


def test_a_name_whose_look_up_hangs_holds_one_thread_and_delays_nobody(
    engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch, slow_example=[["127.0.0.1"]], fsp_example=[["127.0.0.1"]])
    resolver.wait["slow.example"] = threading.Event()
    limited = settings(LOOPBACK, lookups_max=2, connect_timeout_ms=200)
    with Receiver() as fsp, DelivererThread(engine, object_store, limited):
        add_participant(engine, "slowfsp", f"http://slow.example:{fsp.port}")
        add_participant(engine, "payerfsp", f"http://{HOST}:{fsp.port}")
        content = put_content(object_store, PUT_BODY)
        write(engine, *(final("slowfsp", content) for _ in range(8)))
        wait_until(engine, "SELECT count(*) >= 8 FROM delivery_attempt WHERE error LIKE 'ConnectTimeout%'")
        write(engine, *(final("payerfsp", content) for _ in range(8)))
        wait_until(engine, "SELECT count(*) = 8 FROM delivery WHERE state = 'DELIVERED' AND fsp = 'payerfsp'")
        assert resolver.asked.count("slow.example") == 1
        resolver.wait["slow.example"].set()


def test_a_name_that_nobody_knows_is_said(
    engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, fsp_example=[[]])
    with DelivererThread(engine, object_store, SETTINGS):
        add_participant(engine, "payerfsp", f"http://{HOST}:1")
        write(engine, final("payerfsp", put_content(object_store, PUT_BODY)))
        assert attempted(engine)["error"].startswith(f"ConnectError: {HOST} cannot be looked up: ")


def test_of_several_addresses_one_that_answers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, fsp_example=[["::1", "127.0.0.1"]])

    async def connect(port: int) -> str:
        network = GuardedNetwork(LOOPBACK, 1)
        stream = await network.connect_tcp(HOST, port, timeout=5)
        address: tuple[str, int] = stream.get_extra_info("server_addr")
        await stream.aclose()
        network.close()
        return address[0]

    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert asyncio.run(connect(listening.getsockname()[1])) == "127.0.0.1"


def test_nothing_is_sent_to_a_socket_of_this_machine() -> None:
    async def connect() -> None:
        network = GuardedNetwork(LOOPBACK, 1)
        try:
            with pytest.raises(httpcore.ConnectError):
                await network.connect_unix_socket("/var/run/docker.sock")
            with pytest.raises(AddressRefused):
                await network.connect_tcp("10.0.0.1", 80, timeout=1)
        finally:
            network.close()

    asyncio.run(connect())


def _server_context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A TLS server for fsp.example, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    return context, chain


def test_tls_checks_the_name_of_the_endpoint_and_not_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, fsp_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    server, chain = _server_context(tmp_path)
    names: list[str | None] = []

    def note(_: ssl.SSLObject | ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
        names.append(name)

    server.sni_callback = note

    def serve(listening: socket.socket) -> None:
        for _ in range(2):
            connection, _address = listening.accept()
            try:
                with server.wrap_socket(connection, server_side=True) as stream:
                    stream.recv(65_536)
                    stream.sendall(OK)
            except (ssl.SSLError, OSError):
                continue

    async def send(port: int) -> list[str]:
        network = GuardedNetwork(LOOPBACK, 2)
        context = ssl.create_default_context(cafile=str(chain))
        found = []
        async with httpcore.AsyncConnectionPool(ssl_context=context, network_backend=network) as pool:
            for host in (HOST, "other.example"):
                try:
                    response = await pool.request("PUT", f"https://{host}:{port}/")
                    found.append(str(response.status))
                except httpcore.ConnectError as error:
                    found.append(str(error))
        network.close()
        return found

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        status, refused = asyncio.run(send(listening.getsockname()[1]))
        thread.join(20)
    assert status == "200"
    assert "Hostname mismatch" in refused
    assert names == [HOST, "other.example"]
