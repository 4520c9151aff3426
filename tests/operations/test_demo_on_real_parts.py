"""The demo on real Kafka, PostgreSQL and S3 ends as the embedded one does, and leaves neither database nor objects."""

from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest
from minio import Minio
from sqlalchemy import make_url

from tests.operations.processes import run, start, wait_until
from tests.stores import S3Server

pytestmark = pytest.mark.process

_DEMOS = "SELECT datname FROM pg_database WHERE starts_with(datname, 'bulk_switch_demo_')"


@pytest.fixture
def own_database(postgres_server: str) -> str:
    """A database of this test's own on the server: the demos know each other by it."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS demo_tests")
        connection.execute("CREATE DATABASE demo_tests")
    return make_url(postgres_server).set(database="demo_tests").render_as_string(hide_password=False)


def demos_in(database_url: str) -> set[str]:
    with psycopg.connect(database_url) as connection:
        return {row[0] for row in connection.execute(_DEMOS)}


def objects_under(url: str, server: S3Server) -> list[str]:
    place = urlsplit(url)
    bucket, _, prefix = place.path.strip("/").partition("/")
    client = Minio(place.netloc, server.access_key, server.secret_key, secure=False, region="us-east-1")
    found = client.list_objects(bucket, f"{prefix}/", recursive=True, include_version=True)
    return [str(one.object_name) for one in found]


@pytest.mark.kafka
@pytest.mark.services
def test_a_demo_ends_as_ever_and_clears_what_a_killed_one_has_left(
    kafka_bootstrap: str, own_database: str, s3_server: S3Server, s3_url: str, tmp_path: Path
) -> None:
    settings = {
        "BULK_SWITCH_STREAM_URL": f"kafka://{kafka_bootstrap}",
        "BULK_SWITCH_DATABASE_URL": own_database,
        "BULK_SWITCH_OBJECT_STORE_URL": s3_url,
        "BULK_SWITCH_OBJECT_STORE_ACCESS_KEY": s3_server.access_key,
        "BULK_SWITCH_OBJECT_STORE_SECRET_KEY": s3_server.secret_key,
        "TMPDIR": str(tmp_path),
    }
    before = demos_in(own_database)
    with start("demo", "--real", data_folder=tmp_path / "unused", **settings) as killed:
        wait_until(lambda: demos_in(own_database) - before, "a database of the demo's own")
        killed.kill()

    done = run("demo", "--real", "--json", data_folder=tmp_path / "unused", **settings)

    assert done.returncode == 0, done.stderr
    outcome = orjson.loads(done.stdout)
    assert [outcome[name] for name in ("sent", "committed", "aborted", "refused")] == [1000, 800, 100, 100]
    assert demos_in(own_database) == before
    assert objects_under(s3_url, s3_server) == []


def test_a_demo_says_which_real_part_is_missing(tmp_path: Path) -> None:
    done = run("demo", "--real", data_folder=tmp_path, BULK_SWITCH_STREAM_URL="kafka://127.0.0.1:9")
    assert done.returncode == 2
    assert "BULK_SWITCH_DATABASE_URL, BULK_SWITCH_OBJECT_STORE_URL (s3://…)" in done.stderr
    assert "scripts/services up" in done.stderr
    refused = run("demo", "--real", "--data-folder", str(tmp_path), data_folder=tmp_path)
    assert refused.returncode == 1
    assert "--data-folder is for the embedded world" in refused.stderr
