"""One real service (deploy/services) for all workers of a test run: the first one starts it, the last one stops it.

The workers of one run agree on a folder by the run's id and count themselves in it, one at a time. It ends with the run,
also when the run is killed.
"""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from deploy.services import KafkaService, PostgresService, SeaweedService, ServiceError
from deploy.services.service import Service

ServiceT = TypeVar("ServiceT", KafkaService, PostgresService, SeaweedService)
AnyServiceT = TypeVar("AnyServiceT", bound=Service)
# Without xdist there is one worker, and this is its run.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex


@contextmanager
def shared_service(make: Callable[[Path], ServiceT], name: str) -> Iterator[ServiceT]:
    """The running service of this run; one that cannot be had skips the test, and in CI fails it."""
    folder = Path(tempfile.gettempdir()) / f"bulk-switch-{name}-{_RUN}"
    service = make(folder / name)
    try:
        with _users_of(folder) as count:
            count(+1)
            service.end_with(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())
            try:
                service.start()
            except ServiceError as error:
                skip_or_fail(f"no {name}: {str(error).splitlines()[0]}")
        yield service
    finally:
        with _users_of(folder) as count:
            if count(-1) <= 0:
                service.stop()
                shutil.rmtree(folder)


def started(make: Callable[[Path], AnyServiceT], folder: Path) -> AnyServiceT:
    """One that has started in the folder, or beside it if a port was taken meanwhile; raises ServiceError.

    Ports are drawn before the data are made, which takes seconds; another folder has other ports.
    """
    service = make(folder)
    try:
        service.start()
    except ServiceError as error:
        if "another program has taken it" not in str(error):
            raise
        service = make(folder.with_name(f"{folder.name}-again"))
        service.start()
    return service


def is_well(service: Service) -> bool:
    """Whether it answers now; one that does not may be busy, or may not have found its way back yet."""
    try:
        service.check()
    except ServiceError:
        return False
    return True


def skip_or_fail(text: str) -> NoReturn:
    """What is missing on somebody's machine is skipped with one line; continuous integration must not go without."""
    if os.environ.get("CI"):
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


@contextmanager
def _users_of(folder: Path) -> Iterator[Callable[[int], int]]:
    """Count the workers that use it, one worker at a time."""
    counter = folder / "users"

    def count(change: int) -> int:
        users = int(counter.read_text() if counter.exists() else "0") + change
        counter.write_text(str(users))
        return users

    # The lock lies beside the folder and the folder is made under it, because the last user removes it under it.
    with (Path(tempfile.gettempdir()) / f"bulk-switch-services-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        # PostgreSQL, which as root runs as a user of its own, has to pass.
        folder.chmod(0o755)
        yield count
