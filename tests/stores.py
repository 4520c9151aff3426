"""Fixtures that give real servers of S3 and PostgreSQL to any test.

SeaweedFS and PostgreSQL are started (deploy/services) once per test run, shared by all workers of it, and stopped by the
last one. BULK_SWITCH_TEST_S3_URL with BULK_SWITCH_TEST_S3_ACCESS_KEY and _SECRET_KEY, and BULK_SWITCH_TEST_POSTGRES, use
servers that run already, whatever they are; BULK_SWITCH_TEST_CONTAINERS=1 starts containers. Where one cannot be had, the
tests marked `services` that need it are skipped with one line; in CI they fail.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from deploy.services import PostgresService, SeaweedService
from object_store.interface import ObjectStore
from object_store.limits import S3Limits
from object_store.opening import open_object_store
from tests.containers import are_wanted, postgres_container, seaweed_container
from tests.shared_service import shared_service

_VARIABLE = "BULK_SWITCH_TEST_S3_"
# For tests of anything but time-outs: a server on a busy machine may stand still for longer than the product waits.
PATIENT = S3Limits(attempt_timeout_ms=20_000, connect_timeout_ms=10_000)


@dataclass(frozen=True, slots=True)
class S3Server:
    """`url` names a bucket that is there; tests keep to a prefix of their own in it, or make buckets."""

    url: str
    access_key: str
    secret_key: str

    def url_with_prefix(self, prefix: str) -> str:
        parts = urlsplit(self.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{prefix}").geturl()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server."""
    given = os.environ.get(f"{_VARIABLE}URL")
    if given:
        yield S3Server(given, os.environ[f"{_VARIABLE}ACCESS_KEY"], os.environ[f"{_VARIABLE}SECRET_KEY"])
    elif are_wanted():
        with seaweed_container() as (url, access_key, secret_key):
            yield S3Server(url, access_key, secret_key)
    else:
        with shared_service(SeaweedService, "s3") as service:
            yield S3Server(service.url, service.access_key, service.secret_key)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server on a TCP port, with a password; its user may make databases."""
    given = os.environ.get("BULK_SWITCH_TEST_POSTGRES")
    if given:
        yield given
    elif are_wanted():
        with postgres_container() as url:
            yield url
    else:
        with shared_service(PostgresService, "postgres") as service:
            yield service.url


@pytest.fixture
def s3_url(s3_server: S3Server) -> str:
    """The URL of an object store that is this test's own."""
    return s3_server.url_with_prefix(uuid.uuid4().hex)


@pytest.fixture
def s3_store(s3_server: S3Server, s3_url: str) -> ObjectStore:
    """An object store on a real S3 server, empty and ready."""
    store = open_object_store(s3_url, access_key=s3_server.access_key, secret_key=s3_server.secret_key, limits=PATIENT)
    store.provision()
    return store
