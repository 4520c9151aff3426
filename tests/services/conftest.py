"""A folder for services, which a server that runs as another user may enter."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not under pytest's own: as root PostgreSQL runs as a user of its own, and pytest closes those to all others."""
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-services-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
