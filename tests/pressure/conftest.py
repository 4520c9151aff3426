"""Worlds under pressure: a database behind a proxy, and the world's own parts each on its usual place."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.pressure.pressed_world import SETTINGS, PressedWorld
from tests.pressure.proxy import Proxy
from tests.process.running_world import RunningWorld

StartPressed = Callable[..., PressedWorld]


@pytest.fixture
def start_pressed(tmp_path: Path) -> Iterator[StartPressed]:
    """Starts a world with small bounds; further settings are environment variables without their prefix, in lower case."""
    with ExitStack() as stack:

        def start(stream_url: str = "table:", **settings: str) -> PressedWorld:
            variables = {f"BULK_SWITCH_{name.upper()}": value for name, value in (SETTINGS | settings).items()}
            return PressedWorld(stack.enter_context(RunningWorld(tmp_path / "data", stream_url, **variables)))

        yield start


@pytest.fixture
def database_proxy(database_url: str) -> Iterator[Proxy]:
    """A way to the test's database that can be held."""
    where = urlsplit(database_url)
    [folder] = parse_qs(where.query)["host"]
    [port] = parse_qs(where.query).get("port", ["5432"])
    with Proxy(Path(folder) / f".s.PGSQL.{port}") as proxy:
        yield proxy


@pytest.fixture
def proxied_database_url(database_url: str, database_proxy: Proxy) -> str:
    where = urlsplit(database_url)
    return f"postgresql://{where.username}@127.0.0.1:{database_proxy.port}{where.path}"
