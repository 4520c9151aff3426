"""Requests as an OpenAPI document describes them: schemathesis draws parameters and bodies, a test sends them."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.core import NotSet

SHARED = Path(__file__).parents[2] / "shared" / "fspiop"
# In CI every run draws the same requests; elsewhere each draws its own.
BOUNDED = settings(
    max_examples=30,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


@functools.cache
def document(name: str, prefixes: tuple[str, ...] = ("/",)) -> dict[str, Any]:
    """A document of ../shared/fspiop, cut down to the paths that begin so; a bare clone has none, and {} stands for it."""
    path = SHARED / name
    if not path.exists():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    whole: dict[str, Any] = (
        json.loads(path.read_text()) if path.suffix == ".json" else yaml.load(path.read_text(), loader)
    )
    paths = {key: value for key, value in whole["paths"].items() if key.startswith(prefixes)}
    return {**whole, "paths": paths}


def operations(raw: Mapping[str, Any]) -> list[Any]:
    """Every (path, method) of a document as test parameters; one that is skipped where there is no document."""
    methods = {"get", "post", "put", "patch", "delete"}
    found: list[Any] = [
        (path, method.upper()) for path, item in raw.get("paths", {}).items() for method in item if method in methods
    ]
    missing = pytest.param(
        "", "", marks=pytest.mark.skip(reason="../shared/fspiop with the OpenAPI documents is missing")
    )
    return found or [missing]


@functools.cache
def schema_of(name: str, prefixes: tuple[str, ...] = ("/",)) -> Any:
    return schemathesis.openapi.from_dict(document(name, prefixes))


def draw_case(data: Any, name: str, path: str, method: str, prefixes: tuple[str, ...] = ("/",)) -> Any:
    """A request that the document allows for this operation; `body` is None where the document lets it be absent."""
    case = data.draw(schema_of(name, prefixes)[path][method].as_strategy())
    case.body = None if isinstance(case.body, NotSet) else case.body
    return case
