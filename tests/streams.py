"""Fixtures that give a stream to any test: the table stream, and a real Kafka broker started from its own jars.

The broker is started by `scripts/services` once per test run, shared by all workers of it, and stopped by the last one;
BULK_SWITCH_TEST_KAFKA=host:port uses one that runs already. Each test has a namespace of its own on it. Without Java the
tests marked `kafka` are skipped with one line; in CI, where that must not go unnoticed, they fail.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stream.interface import Stream
from stream.opening import TABLE_URL, open_stream

_SERVICES = Path(__file__).parents[1] / "scripts" / "services"
# The first start on a machine fetches 40 MB.
_SERVICES_TIMEOUT_S = 240


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """host:port of a Kafka broker."""
    given = os.environ.get("BULK_SWITCH_TEST_KAFKA")
    if given:
        yield given
        return
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing:
        text = f"no Kafka broker: {' and '.join(missing)} not installed, BULK_SWITCH_TEST_KAFKA not set"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    # All workers of one run agree on the folder.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    folder = Path(tempfile.gettempdir()) / f"bulk-switch-kafka-{run}"
    try:
        with _users_of(folder) as count:
            url = _services(folder, "up", "kafka")
            count(+1)
        yield url.removeprefix("kafka://")
    finally:
        with _users_of(folder) as count:
            if count(-1) <= 0:
                _services(folder, "down")
                shutil.rmtree(folder)


@contextmanager
def _users_of(folder: Path) -> Iterator[Callable[[int], int]]:
    """Count the workers that use the broker, one worker at a time."""
    counter = folder / "users"

    def count(change: int) -> int:
        users = int(counter.read_text() if counter.exists() else "0") + change
        counter.write_text(str(users))
        return users

    folder.mkdir(exist_ok=True)
    with (Path(tempfile.gettempdir()) / f"bulk-switch-kafka-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield count


def _services(folder: Path, *command: str) -> str:
    """What scripts/services prints; a broker that does not come up fails the tests with its reason."""
    environment = os.environ | {"BULK_SWITCH_SERVICES_DATA": str(folder)}
    done = subprocess.run(
        [_SERVICES, *command], env=environment, capture_output=True, text=True, timeout=_SERVICES_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def kafka_url(kafka_bootstrap: str) -> str:
    """The URL of a Kafka stream whose topics and groups are this test's own."""
    return f"kafka://{kafka_bootstrap}/{uuid.uuid4().hex}"


@pytest.fixture(params=["table", pytest.param("kafka", marks=pytest.mark.kafka)])
def stream_url(request: pytest.FixtureRequest) -> str:
    """The URL of each stream there is, without any topics."""
    return TABLE_URL if request.param == "table" else str(request.getfixturevalue("kafka_url"))


@pytest.fixture
def stream(stream_url: str, engine: Engine) -> Iterator[Stream]:
    """Each stream there is, without any topics."""
    stream = open_stream(stream_url, engine)
    yield stream
    stream.close()
