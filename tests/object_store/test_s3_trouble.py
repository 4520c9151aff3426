"""An S3 server that is down, silent, slow, refuses us or answers nonsense is said to be so, in time, without a secret."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from minio import Minio
from minio.versioningconfig import SUSPENDED, VersioningConfig

from object_store.compression import compress
from object_store.interface import ObjectMissing, ObjectStore, ObjectStoreRefused, ObjectStoreUnavailable
from object_store.limits import S3Limits
from object_store.opening import open_object_store
from object_store.url import S3Place, read_url
from tests.object_store.test_contract import wait_until_older
from tests.stores import PATIENT, S3Server

ACCESS_KEY, SECRET_KEY = "the-access-key", "the-secret-key"
KEY = "requests/a/1"
# Nobody waits these out: a busy machine that stands still for a second must not add an attempt.
LIMITS = S3Limits(attempt_timeout_ms=10_000, connect_timeout_ms=10_000, attempts_max=2, connections_max=1)
IMPATIENT = S3Limits(attempt_timeout_ms=100, connect_timeout_ms=100, attempts_max=2, connections_max=1)

Answering = Callable[[BaseHTTPRequestHandler], None]


def open_store(port: int, limits: S3Limits = LIMITS) -> ObjectStore:
    url = f"s3://127.0.0.1:{port}/bucket?secure=false"
    return open_object_store(url, access_key=ACCESS_KEY, secret_key=SECRET_KEY, limits=limits)


@contextmanager
def server(*answers: Answering, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """Answers the first request with the first answer and so on, the rest with the last; the port and what was asked."""
    asked: list[str] = []

    class Scripted(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(f"{self.command} {self.path}")
            answers[min(len(asked), len(answers)) - 1](self)

        # The names that http.server looks for.
        do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # http.server's own name
            """The test looks at what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as http:
        http.daemon_threads = True
        if tls is not None:
            http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield http.server_address[1], asked
        finally:
            http.shutdown()


def whole(body: bytes = b"", **headers: str) -> Answering:
    def answer(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, body, headers)

    return answer


def error(status: int, code: str, **headers: str) -> Answering:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said so</Message></Error>".encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        send(request, status, body, {"Content-Type": "application/xml", **headers})

    return answer


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def cut_off(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, b"half", {"Content-Length": "8"})
    request.close_connection = True


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x")
            threading.Event().wait(0.01)
    except OSError:
        request.close_connection = True


def page_of_a_proxy(request: BaseHTTPRequestHandler) -> None:
    send(request, 502, b"<html>10.1.2.3 is on holiday</html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.put(KEY, b"x"),
        lambda store: store.get(KEY),
        lambda store: store.exists(KEY),
        lambda store: store.put_ms(KEY),
        lambda store: store.keys("requests/"),
        lambda store: store.page("requests/", "", 10),
        lambda store: store.delete(KEY),
        lambda store: store.delete_older(KEY, 1),
        lambda store: store.check(),
        lambda store: store.provision(),
    ],
)
def test_a_server_that_is_down_is_unavailable_and_no_secret_is_told(call: Callable[[ObjectStore], Any]) -> None:  # D20
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        store = open_store(nobody.getsockname()[1])
        with pytest.raises(ObjectStoreUnavailable) as raised:
            call(store)
    assert not isinstance(raised.value, ObjectStoreRefused)
    assert SECRET_KEY not in str(raised.value)
    assert ACCESS_KEY not in str(raised.value)


def test_silence_ends_with_the_last_attempt() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(10)
        began = time.monotonic()
        with pytest.raises(ObjectStoreUnavailable, match=f"cannot keep {KEY}"):
            open_store(silent.getsockname()[1], IMPATIENT).put(KEY, b"x")
        assert time.monotonic() - began >= 2 * 0.1
        silent.setblocking(False)
        connections = [silent.accept()[0] for _ in range(2)]
        with pytest.raises(BlockingIOError):
            silent.accept()
        for connection in connections:
            connection.close()


def test_a_busy_server_is_asked_twice_at_once_and_no_more() -> None:
    """It says when to come again, but how long anybody waits is ours to say."""
    with server(error(503, "SlowDown", Retry_After="3600")) as (port, asked):
        with pytest.raises(ObjectStoreUnavailable, match="SlowDown"):
            open_store(port).put(KEY, b"x")
        assert asked == [f"PUT /bucket/{KEY}"] * 2


def test_the_second_attempt_may_succeed() -> None:
    with server(error(500, "InternalError"), whole(b"body")) as (port, asked):
        assert open_store(port).get(KEY) == b"body"
        assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "SignatureDoesNotMatch"),
        (403, "InvalidAccessKeyId"),
        (403, "AccessDenied"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
        (400, "AuthorizationHeaderMalformed"),
    ],
)
def test_a_refusal_is_told_as_one_and_not_tried_again(status: int, code: str) -> None:
    with server(error(status, code)) as (port, asked):
        store = open_store(port)
        for call in (lambda: store.put(KEY, b"x"), lambda: store.get(KEY)):
            with pytest.raises(ObjectStoreRefused, match=code):
                call()
        assert len(asked) == 2


@pytest.mark.parametrize(("status", "code"), [(429, "TooManyRequests"), (409, "OperationAborted")])
def test_what_passes_is_no_refusal(status: int, code: str) -> None:
    with server(error(status, code)) as (port, _):
        with pytest.raises(ObjectStoreUnavailable, match=code) as raised:
            open_store(port).put(KEY, b"x")
        assert not isinstance(raised.value, ObjectStoreRefused)


def test_a_missing_key_is_no_trouble_and_a_missing_bucket_is() -> None:
    with server(error(404, "NoSuchKey")) as (port, _), pytest.raises(ObjectMissing):
        open_store(port).get(KEY)
    with server(error(404, "")) as (port, asked):
        assert open_store(port).put_ms(KEY) is None
        with pytest.raises(ObjectStoreRefused, match="there is no bucket bucket: `bulk-switch migrate` makes it"):
            open_store(port).exists(KEY)
        assert asked[-1] == "HEAD /bucket"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (cut_off, "IncompleteRead|more expected|broken"),
        (whole(b"altered", x_amz_meta_crc32="00000000"), "what came is not what was kept"),
        (whole(b"altered", x_amz_meta_encoding="zstd"), "what came is no zstd"),
        (whole(compress(b"cut off")[:-3], x_amz_meta_encoding="zstd"), "what came is no zstd"),
        (whole(b"newer", x_amz_meta_encoding="zstd-19"), "kept as 'zstd-19', which this release cannot read"),
    ],
)
def test_a_body_that_is_not_whole_is_never_given_out(answer: Answering, text: str) -> None:  # BULK-128
    with server(answer, whole(b"body")) as (port, _):
        store = open_store(port)
        with pytest.raises(ObjectStoreUnavailable, match=text):
            store.get(KEY)
        # There is one connection: it was given back, and nothing of the bad answer is left on it.
        assert store.get(KEY) == b"body"


def test_a_body_that_drips_is_given_up() -> None:
    with server(drip, whole(b"body")) as (port, asked):
        store = open_store(port, S3Limits(1_000, 1_000, attempts_max=1, connections_max=1))
        with pytest.raises(ObjectStoreUnavailable, match="it comes too slowly"):
            store.get(KEY)
        assert store.get(KEY) == b"body"
        assert len(asked) == 2


def test_the_answer_of_a_proxy_is_unavailable_and_its_page_is_not_repeated() -> None:
    with server(page_of_a_proxy) as (port, _):
        with pytest.raises(ObjectStoreUnavailable, match="not of an S3 server") as raised:
            open_store(port).get(KEY)
        assert "holiday" not in str(raised.value)


def test_a_listing_that_is_no_listing_is_unavailable() -> None:
    no_listing = whole(b"<ListBucketResult><Contents>", Content_Type="application/xml")
    with server(no_listing) as (port, _), pytest.raises(ObjectStoreUnavailable, match="cannot list requests/"):
        open_store(port).keys("requests/")


def test_the_same_request_is_signed_with_the_secret_and_never_carries_it() -> None:
    seen: list[str] = []

    def remember(request: BaseHTTPRequestHandler) -> None:
        seen.append(str(request.headers))
        send(request, 200, b"", {})

    with server(remember) as (port, _):
        open_store(port).put(KEY, b"x")
    assert SECRET_KEY not in seen[0]
    assert f"Credential={ACCESS_KEY}/" in seen[0]


def test_the_servers_certificate_is_checked_against_the_authority(tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ca_file = tmp_path / "ca.pem"
    ours.cert_pem.write_to_path(str(ca_file))
    for authority, is_trusted in ((ours, True), (theirs, False)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with server(whole(b"body"), tls=context) as (port, asked):
            store = open_object_store(
                f"s3://127.0.0.1:{port}/bucket",
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
                ca_file=ca_file,
                limits=LIMITS,
            )
            if is_trusted:
                assert store.get(KEY) == b"body"
            else:
                with pytest.raises(ObjectStoreRefused, match="CERTIFICATE_VERIFY_FAILED"):
                    store.get(KEY)
                assert asked == []


@pytest.mark.services
@pytest.mark.parametrize(("access_key", "secret_key"), [("", "wrong"), ("nobody", "")])
def test_a_real_server_refuses_wrong_credentials(
    s3_server: S3Server, s3_url: str, access_key: str, secret_key: str
) -> None:
    store = open_object_store(
        s3_url,
        access_key=access_key or s3_server.access_key,
        secret_key=secret_key or s3_server.secret_key,
        limits=PATIENT,
    )
    for call in (store.check, lambda: store.put(KEY, b"x"), store.provision):
        with pytest.raises(ObjectStoreRefused):
            call()


@pytest.mark.services
def test_without_versions_nothing_is_deleted_by_age(s3_server: S3Server, s3_url: str) -> None:
    """An operator may have made the bucket by hand; retention then says what is wrong, and deletes nothing."""
    place = read_url(s3_url)
    assert isinstance(place, S3Place)
    client = Minio(place.endpoint, s3_server.access_key, s3_server.secret_key, secure=place.secure, region=place.region)
    bucket = f"without-versions-{time.time_ns()}"
    client.make_bucket(bucket)
    url = f"s3://{place.endpoint}/{bucket}?secure={str(place.secure).lower()}"
    open_it = partial(
        open_object_store, url, access_key=s3_server.access_key, secret_key=s3_server.secret_key, limits=PATIENT
    )
    store = open_it()
    store.check()
    store.put(KEY, b"x")
    before_ms = wait_until_older(store, store.put_ms(KEY) or 0)
    with pytest.raises(ObjectStoreRefused, match="keeps no versions"):
        store.delete_older(KEY, before_ms)
    assert store.get(KEY) == b"x"
    # What lay there before can be deleted once versions are on.
    store.provision()
    assert store.delete_older(KEY, before_ms)
    assert not store.exists(KEY)
    client.set_bucket_versioning(bucket, VersioningConfig(SUSPENDED))
    fresh = open_it()
    with pytest.raises(ObjectStoreRefused, match="keeps no versions"):
        fresh.delete_older("requests/clock/now", before_ms)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3://",
        "s3://host",
        "s3://host/B",
        "s3://key:secret@host/bucket",
        "s3://host/bucket/../other",
        "s3://host/bucket?secure=maybe",
        "s3://host/bucket?other=1",
        "s3://host/bucket#part",
        "s3://host:port/bucket",
        "http://host/bucket",
        "file:relative",
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must") as raised:
        open_object_store(url, access_key="a", secret_key="s")
    assert "secret" not in str(raised.value)


def test_a_url_says_where_the_store_is(tmp_path: Path) -> None:
    assert read_url("s3://minio:9000/switch/objects?secure=false&region=eu-central-1") == S3Place(
        "minio:9000", "switch", "objects/", secure=False, region="eu-central-1"
    )
    assert read_url("s3://s3.amazonaws.com/switch-objects/") == S3Place("s3.amazonaws.com", "switch-objects")
    assert read_url(f"file://{tmp_path}") == tmp_path == read_url(str(tmp_path))
    with pytest.raises(ValueError, match="access key"):
        open_object_store("s3://host/bucket")
