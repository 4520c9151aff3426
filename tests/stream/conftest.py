"""Readers that are closed at the end of a test, also of one that fails."""

from collections.abc import Iterator

import pytest

from tests.stream.reader import Readers


@pytest.fixture
def readers() -> Iterator[Readers]:
    readers = Readers()
    yield readers
    readers.close()
