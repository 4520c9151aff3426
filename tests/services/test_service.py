"""Each real service answers when it has started, keeps ports and data whatever happens to it, and leaves nothing behind."""

import io
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from minio import Minio

from deploy.services import KafkaService, PostgresService, SeaweedService, ServiceError
from deploy.services.seaweed import BUCKET
from deploy.services.service import Service
from operations.ports import trouble_with_port
from tests.operations.processes import wait_until
from tests.shared_service import is_well, skip_or_fail, started

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(900)]

# A killed node may come back when its session is over, which need not last as long as in production.
_SESSION = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "200"}
_MAKERS: dict[str, Callable[[Path], Service]] = {
    "kafka": lambda folder: KafkaService(folder, properties=_SESSION),
    "postgres": PostgresService,
    "s3": SeaweedService,
}


@pytest.fixture(params=["postgres", "s3", pytest.param("kafka", marks=pytest.mark.kafka)])
def service(request: pytest.FixtureRequest, folder: Path) -> Iterator[Service]:
    """One that has started; everything of it is gone after the test."""
    try:
        service = started(_MAKERS[request.param], folder / "service")
    except ServiceError as error:
        skip_or_fail(f"no {request.param}: {str(error).splitlines()[0]}")
    try:
        yield service
    finally:
        service.kill()


def keep_something(service: Service) -> None:
    match service:
        case KafkaService():
            # Kept until it has answered: a client that nobody holds ends with its questions open.
            admin = AdminClient({"bootstrap.servers": service.bootstrap})
            admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result()
        case PostgresService():
            with psycopg.connect(service.url) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        case SeaweedService():
            s3_client(service).put_object(BUCKET, "kept", io.BytesIO(b"one"), 3)


def is_kept(service: Service) -> bool:
    match service:
        case KafkaService():
            return "kept" in AdminClient({"bootstrap.servers": service.bootstrap}).list_topics(timeout=10).topics
        case PostgresService():
            with psycopg.connect(service.url) as connection:
                return connection.execute("SELECT one FROM kept").fetchone() == (1,)
        case SeaweedService():
            answer = s3_client(service).get_object(BUCKET, "kept")
            try:
                return answer.read() == b"one"
            finally:
                answer.close()
        case _:
            raise AssertionError(service)


def s3_client(service: SeaweedService) -> Minio:
    host = service.url.removeprefix("s3://").partition("/")[0]
    return Minio(host, service.access_key, service.secret_key, secure=False, region="us-east-1")


def test_what_was_kept_survives_a_kill_and_a_stop_on_the_same_ports(service: Service) -> None:
    url, first = service.url, service.pids()
    keep_something(service)
    service.kill()
    assert not service.is_running()
    assert not any(psutil.pid_exists(pid) and _is_alive(pid) for pid in first)
    service.start()
    assert is_kept(service)
    service.stop()
    assert service.pids() == []
    service.start()
    assert service.url == url
    assert is_kept(service)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_paused_service_keeps_silent_until_it_is_resumed(service: Service) -> None:
    service.pause()
    assert service.is_running()
    with pytest.raises(ServiceError):
        service.check()
    service.resume()
    # Not at once: a broker whose session was over by then joins its cluster anew.
    wait_until(lambda: is_well(service), "an answer after the pause")
    # A stop continues it, instead of waiting for a process that cannot hear.
    service.pause()
    service.stop()
    assert not service.is_running()


def test_many_who_start_it_at_once_get_one(service: Service) -> None:
    service.stop()
    [maker] = [one for name, one in _MAKERS.items() if name == service.name]
    others = [maker(service.folder) for _ in range(4)]
    troubles: list[Exception] = []

    def start(one: Service) -> None:
        try:
            one.start()
        except Exception as error:
            troubles.append(error)

    threads = [threading.Thread(target=start, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    pids = {one.pids()[0] for one in others}
    assert len(pids) == 1
    assert psutil.Process(pids.pop()).is_running()


def test_it_ends_with_the_process_that_it_was_tied_to(folder: Path) -> None:
    service = PostgresService(folder / "postgres")
    with subprocess.Popen(["/bin/sleep", "1000"]) as owner:
        service.end_with(owner.pid)
        try:
            service.start()
            pids = service.pids()
            owner.kill()
            owner.wait()
            wait_until(lambda: not any(_is_alive(pid) for pid in pids), "the end of the service")
        finally:
            owner.kill()
            service.kill()


def test_a_port_that_another_program_has_taken_is_named(folder: Path) -> None:
    service = SeaweedService(folder / "s3")
    try:
        service.start()
    except ServiceError as error:
        skip_or_fail(f"no s3: {str(error).splitlines()[0]}")
    try:
        service.stop()
        port = int(service.url.removeprefix("s3://127.0.0.1:").partition("/")[0])
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
            assert trouble_with_port("127.0.0.1", port)
            with pytest.raises(ServiceError, match=f"s3 port {port}.*another program"):
                service.start()
        assert service.pids() == []
        service.start()
    finally:
        service.kill()


def test_before_its_first_start_a_service_has_done_nothing_and_says_so(folder: Path) -> None:
    for maker in _MAKERS.values():
        service = maker(folder / "never")
        assert not service.is_running()
        assert service.pids() == []
        with pytest.raises(ServiceError, match="never started"):
            _ = service.url
        service.kill()
    assert list(folder.iterdir()) == []


def test_the_switchs_user_is_no_superuser_and_needs_its_password(folder: Path) -> None:
    service = PostgresService(folder / "postgres")
    try:
        service.start()
        with psycopg.connect(service.url) as connection:
            row = connection.execute(
                "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
        assert row == (False, True)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(service.url.replace(service.password, "wrong"))
    finally:
        service.kill()
    assert (folder / "postgres" / "password").stat().st_mode & 0o077 == 0


def test_s3_refuses_who_has_no_key_or_a_wrong_one(folder: Path) -> None:
    service = SeaweedService(folder / "s3")
    try:
        try:
            service.start()
        except ServiceError as error:
            skip_or_fail(f"no s3: {str(error).splitlines()[0]}")
        host = service.url.removeprefix("s3://").partition("/")[0]
        for access_key, secret_key in ((None, None), (service.access_key, "wrong")):
            stranger = Minio(host, access_key, secret_key, secure=False, region="us-east-1")
            with pytest.raises(Exception, match=r"Access Denied|AccessDenied|SignatureDoesNotMatch|signature"):
                stranger.put_object(BUCKET, "strange", io.BytesIO(b"one"), 3)
    finally:
        service.kill()
    assert (folder / "s3" / "s3.json").stat().st_mode & 0o077 == 0
