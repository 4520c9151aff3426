"""A running world for each test that kills its processes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.running_world import RunningWorld

StartWorld = Callable[..., RunningWorld]


@pytest.fixture
def start_world(tmp_path: Path, stream_url: str) -> Iterator[StartWorld]:
    """Starts a world on each stream; the settings are environment variables without their prefix, in lower case."""
    with ExitStack() as stack:

        def start(**settings: str) -> RunningWorld:
            variables = {f"BULK_SWITCH_{name.upper()}": value for name, value in settings.items()}
            return stack.enter_context(RunningWorld(tmp_path / "data", stream_url, **variables))

        yield start
