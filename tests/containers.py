"""The same real parts in containers (testcontainers), for those who have Docker: BULK_SWITCH_TEST_CONTAINERS=1.

The images are docker-compose.yml's, so that there is one place where they are pinned. Where no engine answers, the tests
that asked are skipped with one line (in CI they fail). A port is chosen before the start, because Kafka must be told the
address at which its clients find it. These three were written where no engine is, and never ran against one.
"""

import gc
import io
import json
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import psycopg
import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from docker.errors import DockerException
from minio import Minio
from minio.error import MinioException
from testcontainers.core.container import DockerContainer
from urllib3.exceptions import HTTPError

from operations.ports import free_ports
from tests.shared_service import skip_or_fail

_COMPOSE = Path(__file__).parents[1] / "docker-compose.yml"
_HOST = "127.0.0.1"
_START_WAIT_S = 120.0
_ASK_WAIT_S = 2.0
_PASSWORD_BYTES = 18
_BUCKET = "bulk-switch"


def are_wanted() -> bool:
    return os.environ.get("BULK_SWITCH_TEST_CONTAINERS") == "1"


def image_of(name: str) -> str:
    """The pinned image whose repository has this name."""
    services = yaml.safe_load(_COMPOSE.read_text())["services"].values()
    found = {service["image"] for service in services if _repository(service.get("image", "")) == name}
    assert len(found) == 1, f"docker-compose.yml pins {len(found)} images of {name}"
    return str(found.pop())


def _repository(image: str) -> str:
    return image.partition("@")[0].partition(":")[0].rpartition("/")[2]


def require_engine() -> None:
    """Skip (in CI fail) with one line where no container engine answers."""
    trouble = _trouble_with_engine()
    if trouble:
        skip_or_fail(f"BULK_SWITCH_TEST_CONTAINERS=1, but no container engine answers: {trouble}")


def _trouble_with_engine() -> str:
    with warnings.catch_warnings():
        # The client forgets to close a socket that nobody listens to.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env()) as client:
                client.ping()
            return ""
        except DockerException as error:
            return str(error).splitlines()[0]
        finally:
            gc.collect()


@contextmanager
def kafka_container() -> Iterator[str]:
    """host:port of one broker, KRaft."""
    require_engine()
    [port] = free_ports(1)
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{_HOST}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    with DockerContainer(image_of("kafka"), env=settings).with_bind_ports(9092, port):
        admin = AdminClient({"bootstrap.servers": f"{_HOST}:{port}"})
        _wait_until("Kafka", lambda: admin.list_topics(timeout=_ASK_WAIT_S), KafkaException)
        yield f"{_HOST}:{port}"


@contextmanager
def postgres_container() -> Iterator[str]:
    """The URL of a server's database `postgres`, a superuser's."""
    require_engine()
    [port] = free_ports(1)
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    url = f"postgresql://postgres:{password}@{_HOST}:{port}/postgres?sslmode=disable"
    with DockerContainer(image_of("postgres"), env={"POSTGRES_PASSWORD": password}).with_bind_ports(5432, port):
        _wait_until("PostgreSQL", lambda: psycopg.connect(url, connect_timeout=int(_ASK_WAIT_S)).close(), psycopg.Error)
        yield url


@contextmanager
def seaweed_container() -> Iterator[tuple[str, str, str]]:
    """The URL of a bucket, access key and secret key."""
    require_engine()
    [port] = free_ports(1)
    access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(30)
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": _BUCKET, "credentials": credentials, "actions": actions}]}
    container = DockerContainer(
        image_of("seaweedfs"),
        entrypoint="/usr/bin/weed",
        command="mini -dir=/data -ip.bind=0.0.0.0 -s3.config=/etc/s3.json -master.telemetry=false",
        transferables=[(json.dumps(identities).encode(), "/etc/s3.json")],
    )
    with container.with_bind_ports(8333, port):
        client = Minio(f"{_HOST}:{port}", access_key, secret_key, secure=False, region="us-east-1")
        _wait_until("SeaweedFS", lambda: _make_bucket(client), MinioException, HTTPError)
        yield f"s3://{_HOST}:{port}/{_BUCKET}?secure=false&region=us-east-1", access_key, secret_key


def _make_bucket(client: Minio) -> None:
    if not client.bucket_exists(_BUCKET):
        client.make_bucket(_BUCKET)
    client.put_object(_BUCKET, "health", io.BytesIO(b"?"), 1)


def _wait_until(what: str, ask: Callable[[], object], *not_yet: type[Exception]) -> None:
    deadline = time.monotonic() + _START_WAIT_S
    while True:
        try:
            ask()
            return
        except not_yet as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} does not answer in {_START_WAIT_S:.0f} s: {error}") from error
        time.sleep(0.2)
