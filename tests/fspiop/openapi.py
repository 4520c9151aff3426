"""The OpenAPI 1.1 document as a judge of bodies."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

_DOCUMENT = Path(__file__).parents[2].parent / "shared" / "fspiop" / "fspiop-v1.1-openapi3.yaml"


@cache
def _document() -> dict[str, Any]:
    if not _DOCUMENT.exists():
        pytest.skip(f"{_DOCUMENT} is not there: a bare clone has no OpenAPI document to compare with")
    document: dict[str, Any] = yaml.safe_load(_DOCUMENT.read_text())
    return document


@cache
def validator(schema: str) -> Draft202012Validator:
    """A validator for one of the document's schemas."""
    components = _document()["components"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": components})


def schema_of(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = _document()["components"]["schemas"][name]
    return schema
