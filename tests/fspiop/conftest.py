"""The edge in this process, with its threads ended after the test."""

from collections.abc import Iterator

import pytest

from tests.fspiop.requests import Edge


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()
