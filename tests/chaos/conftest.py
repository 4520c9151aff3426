"""Real parts for the tests that kill and hold them: their own, because whoever shares a broker must not kill it."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.services import ServiceError
from tests.chaos.parts import Parts, running_parts
from tests.shared_service import skip_or_fail


@contextmanager
def _parts(kafka_nodes: int) -> Iterator[Parts]:
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-chaos-tests-"))
    # PostgreSQL, which as root runs as a user of its own, has to pass.
    folder.chmod(0o755)
    try:
        with running_parts(folder, kafka_nodes) as parts:
            yield parts
    except ServiceError as error:
        skip_or_fail(f"no chaos: {str(error).splitlines()[0]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def parts() -> Iterator[Parts]:
    """Kafka of one node, PostgreSQL and S3, which every test may kill and has to bring back."""
    with _parts(kafka_nodes=1) as parts:
        yield parts


@pytest.fixture
def parts_with_three_nodes() -> Iterator[Parts]:
    """The same with three nodes of Kafka, two of which must have each record."""
    with _parts(kafka_nodes=3) as parts:
        yield parts


@pytest.fixture
def random_seed() -> int:
    """Another one in each run; printed, so that whoever sees a failure can play it again."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return seed


@pytest.fixture
def world_name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A name for each world of a test: of a database, a namespace of topics, a prefix and a folder."""
    test = "".join(letter for letter in request.node.name if letter.isalnum())[:24].lower()
    return lambda what: f"{test}-{what}-{random.SystemRandom().randrange(10**6)}"
