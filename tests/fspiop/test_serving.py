"""A real socket: sizes, slowness and what is not HTTP, as a client sees them."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.serving import ConnectionLimits, make_server
from operations.ports import free_ports
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.requests import headers, post_body

WAIT_S = 60
BODY = json.dumps(post_body()).encode()


class Running:
    """A server on a loopback port, in a thread of this process."""

    def __init__(self, server: uvicorn.Server, stream: MemoryStream, store: MemoryObjectStore) -> None:
        self.server, self.stream, self.store = server, stream, store
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            yield connection

    def untouched(self) -> bool:
        return not self.stream.records and not self.store.objects


@contextmanager
def running(limits: EdgeLimits | None = None, connection_limits: ConnectionLimits | None = None) -> Iterator[Running]:
    stream, store = MemoryStream(), MemoryObjectStore()
    app = make_fspiop_app(stream, store, limits)
    server = make_server(app, "127.0.0.1", 0, log_level="critical", limits=connection_limits)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + WAIT_S
    while not server.started:
        assert thread.is_alive(), "the server ended instead of starting"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield Running(server, stream, store)
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as one:
        yield one


@pytest.fixture
def quick() -> Iterator[Running]:
    """A server whose patience is short."""
    with running(
        EdgeLimits(body_wait_ms=100),
        ConnectionLimits(head_wait_ms=100, rest_wait_ms=100, connections_max=3),
    ) as one:
        yield one


def head(method: str = "POST", path: str = "/bulkTransfers", **changes: str | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: switch"]
    lines += [f"{name}: {value}" for name, value in headers(method, **changes).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of the next answer, and not a byte of the one behind it."""
    lines = b""
    while not lines.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, f"the connection ended after {lines!r}"
        lines += byte
    status, *fields = lines.decode().removesuffix("\r\n\r\n").split("\r\n")
    values = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    body = b""
    while len(body) < (length := int(values["content-length"])):
        piece = connection.recv(length - len(body))
        assert piece, f"the connection ended within the body, after {body!r}"
        body += piece
    return status, values, body


def error_code(body: bytes) -> str:
    code: str = json.loads(body)["errorInformation"]["errorCode"]
    return code


def test_a_connection_serves_many_requests_and_says_nothing_of_its_server(server: Running) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            response = client.post("/bulkTransfers", headers=headers(), content=BODY)
            assert (response.status_code, response.reason_phrase, response.content) == (202, "Accepted", b"")
            assert "server" not in response.headers
        refused = client.post("/bulkTransfers", headers=headers(), content=b"{")
        assert (refused.status_code, refused.reason_phrase) == (400, "Bad Request")


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent() -> None:  # BULK-129
    with running() as server, server.connection() as connection:
        connection.sendall(head(content_length="5242881"))
        status, _, body = answer(connection)
        assert (status, error_code(body)) == ("HTTP/1.1 400 Bad Request", "3104")
        assert server.untouched()


def test_a_client_that_sends_all_of_a_body_beyond_the_limit_still_reads_why_it_is_refused(server: Running) -> None:
    with httpx.Client(base_url=server.url) as client:
        for content in (b"x" * 6_000_000, iter([b"x" * 1_000_000] * 6)):
            response = client.post("/bulkTransfers", headers=headers(), content=content)
            assert (response.status_code, error_code(response.content)) == (400, "3104")
        assert client.post("/bulkTransfers", headers=headers(), content=BODY).status_code == 202


def test_a_body_at_the_limit_is_read(server: Running) -> None:
    body = BODY + b" " * (5_242_880 - len(BODY))
    response = httpx.post(f"{server.url}/bulkTransfers", headers=headers(), content=body)
    assert response.status_code == 202


def test_headers_up_to_the_limit_are_read_and_beyond_it_refused(server: Running) -> None:
    padding = 65_536 - 500
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/bulkTransfers", headers=headers(x_padding="x" * padding), content=BODY).status_code == 202
        refused = client.post("/bulkTransfers", headers=headers(x_padding="x" * 65_536), content=BODY)
        assert (refused.status_code, error_code(refused.content)) == (400, "3104")


def test_a_head_without_end_is_refused_and_the_connection_closed(server: Running) -> None:
    with server.connection() as connection:
        connection.sendall(b"POST /bulkTransfers HTTP/1.1\r\nx-padding: ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012  # it breaks somewhere in the loop
            for _ in range(10_000):
                connection.sendall(b"x" * 10_000)


def test_what_follows_a_body_as_a_trailer_is_dropped() -> None:
    with running() as server, server.connection() as connection:
        connection.sendall(head(transfer_encoding="chunked"))
        connection.sendall(b"%x\r\n%s\r\n0\r\nfspiop-source: stranger\r\n\r\n" % (len(BODY), BODY))
        assert answer(connection)[0] == "HTTP/1.1 202 Accepted"
        assert b"stranger" not in b"".join(server.store.objects.values())


def test_what_is_not_http_is_refused_as_fspiop_does(server: Running) -> None:
    with server.connection() as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        status, values, body = answer(connection)
        assert (status, values["connection"], error_code(body)) == ("HTTP/1.1 400 Bad Request", "close", "3101")


@pytest.mark.parametrize("transfer_encoding", [None, "chunked"])
def test_an_offer_to_upgrade_is_ignored(server: Running, transfer_encoding: str | None) -> None:
    changes = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    body = BODY if transfer_encoding is None else b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    length = None if transfer_encoding else str(len(body))
    with server.connection() as connection:
        for _ in range(2):
            sent = head(**changes, content_length=length, transfer_encoding=transfer_encoding) + body
            # In two pieces, so that the body does not arrive with its head.
            connection.sendall(sent[:-20])
            connection.sendall(sent[-20:])
            assert answer(connection)[0] == "HTTP/1.1 202 Accepted"
        connection.sendall(head(content_length=str(len(BODY))) + BODY)
        assert answer(connection)[0] == "HTTP/1.1 202 Accepted"


def test_two_requests_sent_at_once_are_answered_in_order(server: Running) -> None:
    with server.connection() as connection:
        refused = head(content_length="1", date=None) + b"x"
        connection.sendall(refused + head(content_length=str(len(BODY))) + BODY)
        assert answer(connection)[0] == "HTTP/1.1 400 Bad Request"
        assert answer(connection)[0] == "HTTP/1.1 202 Accepted"


def test_a_body_that_does_not_end_is_refused_in_time(quick: Running) -> None:
    with quick.connection() as connection:
        connection.sendall(head(content_length=str(len(BODY))) + BODY[:-1])
        status, values, body = answer(connection)
        assert (status, values["connection"], error_code(body)) == ("HTTP/1.1 400 Bad Request", "close", "3000")
        assert connection.recv(1) == b""
    assert quick.untouched()


def test_a_client_that_goes_away_in_its_body_leaves_nothing(quick: Running) -> None:
    with quick.connection() as connection:
        connection.sendall(head(content_length=str(len(BODY))) + BODY[:-1])
    assert httpx.get(f"{quick.url}/health").status_code == 200
    assert quick.untouched()


@pytest.mark.parametrize("sent", [b"", b"POST /bulkTransfers HTTP/1.1\r\nhost: "])
def test_a_head_that_does_not_end_closes_the_connection_in_time(quick: Running, sent: bytes) -> None:
    with quick.connection() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_what_is_left_of_a_refused_request_has_its_time_too(quick: Running) -> None:
    with quick.connection() as connection:
        connection.sendall(head(date=None, content_length=str(len(BODY))) + BODY[:10])
        assert answer(connection)[0] == "HTTP/1.1 400 Bad Request"
        assert connection.recv(1) == b""


def test_more_connections_than_the_limit_are_answered_503() -> None:
    with (
        running(connection_limits=ConnectionLimits(connections_max=3)) as server,
        server.connection() as one,
        server.connection() as two,
        server.connection() as three,
    ):
        for connection in (one, two, three):
            connection.sendall(head("GET", "/health"))
            assert answer(connection)[0] == "HTTP/1.1 200 OK"
        with server.connection() as fourth:
            status, _, body = answer(fourth)
            assert (status, error_code(body)) == ("HTTP/1.1 503 Service Unavailable", "2003")


def test_a_request_that_runs_is_answered_before_the_server_stops() -> None:
    with running() as server, server.connection() as connection:
        server.stream.acknowledges.clear()
        connection.sendall(head(content_length=str(len(BODY))) + BODY)
        deadline = time.monotonic() + WAIT_S
        while not server.stream.producers:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        server.server.should_exit = True
        server.stream.acknowledges.set()
        assert answer(connection)[0] == "HTTP/1.1 202 Accepted"


_SERVER = """
from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.serving import serve
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream

stream = MemoryStream()
serve(make_fspiop_app(stream, MemoryObjectStore()), "127.0.0.1", {port}, log_level="critical")
print(len(stream.records), stream.closed_producers)
"""


@pytest.mark.process
def test_sigterm_ends_the_lifespan_and_the_process_goes_on_to_its_own_end() -> None:
    [port] = free_ports(1)
    process = subprocess.Popen([sys.executable, "-c", _SERVER.format(port=port)], stdout=subprocess.PIPE, text=True)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
            response = client.post(f"http://127.0.0.1:{port}/bulkTransfers", headers=headers(), content=BODY)
        assert response.status_code == 202
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, output.split()) == (0, ["1", "1"])
