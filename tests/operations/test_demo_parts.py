"""A demo on real parts removes what killed ones have left, and nothing of one that lives."""

from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from object_store.folder import FolderObjectStore
from operations import demo_parts
from operations.demo_parts import parts_of_its_own
from operations.settings import Settings

KILLED = "bulk_switch_demo_killed"


@pytest.fixture(autouse=True)
def objects_in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_parts, "make_object_store", lambda _: FolderObjectStore(tmp_path))


def started_from(database_url: str) -> Settings:
    return Settings(
        database_url=database_url,
        stream_url="kafka://127.0.0.1:9",
        object_store_url="s3://127.0.0.1:9/none",
        object_store_access_key="nobody",
        object_store_secret_key=SecretStr("none"),
    )


def demos_on(server_url: str) -> set[str]:
    with psycopg.connect(server_url) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, 'bulk_switch_demo_')")
        return {row[0] for row in names}


def name_of(settings: Settings) -> str:
    return str(make_url(settings.database_url).database)


def test_a_living_demo_is_left_alone_whatever_database_it_and_the_next_were_started_from(
    postgres_url: str, database_url: str
) -> None:
    with parts_of_its_own(started_from(database_url)) as living:
        # Advisory locks are a database's, and the list of databases is the server's.
        for url in (database_url, postgres_url):
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {KILLED}")
            with parts_of_its_own(started_from(url)) as other:
                assert demos_on(postgres_url) == {name_of(living), name_of(other)}
    assert demos_on(postgres_url) == set()
