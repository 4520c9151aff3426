"""What tests share: one embedded PostgreSQL per test process, and a database of its own for every test that asks.

`engine` gives a migrated database, made from a template in a few milliseconds; migrations run once per process, so the
schema under test is the one that `bulk-switch migrate` makes.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import Engine, create_engine, text

from db.engine import make_engine
from db.migrate import migrate
from object_store.folder import FolderObjectStore
from operations import embedded_postgres

# What these modules assert is to be explained as in a test; said here, because they import each other.
pytest.register_assert_rewrite(
    "tests.pressure.pressed_world",
    "tests.process.bulk_sets",
    "tests.process.end_state",
    "tests.process.running_world",
)

# How long an example takes depends on who else uses the machine.
hypothesis.settings.register_profile("switch", deadline=None)
hypothesis.settings.load_profile("switch")

pytest_plugins = ["tests.stores", "tests.streams"]

_TEMPLATE = "bulk_switch_template"
_numbers = itertools.count(1)


def database_url_of(server_url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return server_url.replace("/postgres?", f"/{database}?")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test process, with a migrated template database in it."""
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-tests-"))
    folder.chmod(0o755)
    try:
        url = embedded_postgres.start(folder / "postgres")
        _execute(url, f"CREATE DATABASE {_TEMPLATE}")
        engine = make_engine(database_url_of(url, _TEMPLATE), application_name="tests")
        migrate(engine)
        engine.dispose()
        yield url
    finally:
        embedded_postgres.stop(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh migrated database, dropped after the test."""
    name = f"bulk_switch_test_{next(_numbers)}"
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield database_url_of(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine, set up as the switch's own, on a fresh migrated database."""
    engine = make_engine(database_url, application_name="tests", pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture
def object_store(tmp_path: Path) -> FolderObjectStore:
    return FolderObjectStore(tmp_path / "objects")


def _execute(server_url: str, statement: str) -> None:
    engine = create_engine(server_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
