"""Containers are the composition's pinned images; where no engine answers, one line says so, and CI does not skip.

The containers themselves need an engine; what is tested here is what does not.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests import containers

_FIXTURES: list[Callable[[], AbstractContextManager[object]]] = [
    containers.kafka_container,
    containers.postgres_container,
    containers.seaweed_container,
]


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")


@pytest.mark.parametrize("name", ["kafka", "postgres", "seaweedfs"])
def test_every_image_has_one_pinned_version(name: str) -> None:
    image = containers.image_of(name)
    # A version, or a digest; never "latest", which is another image tomorrow.
    assert re.search(r":\d+\.\d+|@sha256:[0-9a-f]{64}$", image), image


@pytest.mark.parametrize("make", _FIXTURES)
def test_without_an_engine_a_test_is_skipped_with_one_line(
    make: Callable[[], AbstractContextManager[object]], no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no container engine answers") as skipped, make():
        pass
    assert "\n" not in str(skipped.value)


def test_in_ci_it_fails_instead(no_engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no container engine answers"), containers.kafka_container():
        pass


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("", False), ("0", False)])
def test_containers_are_started_only_for_those_who_ask(
    value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULK_SWITCH_TEST_CONTAINERS", value)
    assert containers.are_wanted() is wanted
