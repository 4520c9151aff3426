"""The FSPIOP 1.1 OpenAPI document as a judge: is this callback, its headers and its body, one that an FSP must accept?

`check_callback` is what the simulated FSPs are given in every flow test. What the document cannot say but clients rely on
(reference §2, §6, §11.12) is checked beside it: the exact content type, no Accept on a PUT, no null anywhere, either a
fulfilment or an error, and that FSPIOP-URI and FSPIOP-HTTP-Method agree with the request.
"""

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from jsonschema import Draft4Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

from db.reference_data import HUB_NAME

DOCUMENT = Path(__file__).parent.parent.parent / "shared" / "fspiop" / "fspiop-v1.1-openapi3.yaml"

requires_document = pytest.mark.skipif(
    not DOCUMENT.exists(), reason="../shared/fspiop with the OpenAPI document is missing"
)

BODY_BYTES_MAX = 5_242_880
HEADER_BYTES_MAX = 65_536

_CONTENT_TYPE = "application/vnd.interoperability.{resource}+json;version=1.1"
_PATHS = {
    "/transfers": re.compile(r"^/transfers$"),
    "/transfers/{ID}": re.compile(r"^/transfers/([^/]+)$"),
    "/transfers/{ID}/error": re.compile(r"^/transfers/([^/]+)/error$"),
    "/bulkTransfers": re.compile(r"^/bulkTransfers$"),
    "/bulkTransfers/{ID}": re.compile(r"^/bulkTransfers/([^/]+)$"),
    "/bulkTransfers/{ID}/error": re.compile(r"^/bulkTransfers/([^/]+)/error$"),
}
# Those of the document, and what HTTP itself needs.
_HEADERS = re.compile(r"^(accept|content-type|content-length|date|host|fspiop-.*|traceparent|tracestate)$")
_ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def check_callback(method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """What is wrong with a callback that came to an FSP; [] when nothing is. Header names may be in any case."""
    template, match = next(
        ((name, found) for name, form in _PATHS.items() if (found := form.match(path))), (None, None)
    )
    if template is None or match is None or method.lower() not in _document()["paths"][template]:
        return [f"the document has no {method} {path}"]
    lower = {name.lower(): value for name, value in headers.items()}
    wrong = list(_wrong_headers(method, template, lower))
    wrong += _wrong_uri(path, template, method, lower)
    if match.groups() and not _ID.match(match.group(1)):
        wrong.append(f"{match.group(1)} is no CorrelationId")
    return wrong + list(_wrong_body(method, template, body))


def check_body(method: str, path: str, body: bytes) -> list[str]:
    """What is wrong with a body of a request to `path`, whoever sends it; [] when nothing is."""
    template = next(name for name, form in _PATHS.items() if form.match(path))
    return list(_wrong_body(method, template, body))


def _wrong_headers(method: str, template: str, headers: Mapping[str, str]) -> Iterator[str]:
    for parameter in _header_parameters(method, template):
        value = headers.get(parameter["name"].lower())
        if value is None and parameter.get("required"):
            yield f"header {parameter['name']} is missing"
        if value is not None and parameter["schema"]["type"] == "integer" and not value.isdigit():
            yield f"header {parameter['name']} is no integer: {value}"
    content_type = _CONTENT_TYPE.format(resource=template.split("/")[1])
    if headers.get("content-type") != content_type:
        yield f"Content-Type is {headers.get('content-type')}"
    if method in ("PUT", "PATCH") and "accept" in headers:
        yield f"a {method} carries an Accept"
    if method == "POST" and headers.get("accept") != content_type:
        yield f"Accept of the POST is {headers.get('accept')}"
    if not headers.get("fspiop-destination"):
        yield "FSPIOP-Destination is missing although the receiver is known"
    date = headers.get("date", "")
    try:
        is_date = date.endswith(" GMT") and parsedate_to_datetime(date) is not None
    except ValueError:
        is_date = False
    if not is_date:
        yield f"Date is no HTTP date: {date!r}"
    for name in headers:
        if not _HEADERS.match(name):
            yield f"header {name} is none of FSPIOP's"
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > HEADER_BYTES_MAX:
        yield f"the headers are longer than {HEADER_BYTES_MAX} bytes"


def _wrong_uri(path: str, template: str, method: str, headers: Mapping[str, str]) -> list[str]:
    # A bulk's URI begins with the FSP's name (reference §6), a single transfer's does not (§11.22).
    has_prefix = template.startswith("/bulkTransfers/")
    prefix = f"/{headers.get('fspiop-destination')}" if has_prefix else ""
    wanted = {"fspiop-uri": prefix + path, "fspiop-http-method": method}
    if template.startswith("/transfers") and headers.get("fspiop-source") != HUB_NAME:
        # Another FSP's request, as it was sent: both are its own to say, and only a signature makes them mandatory.
        wanted = {name: value for name, value in wanted.items() if name in headers}
    return [
        f"{name} is {headers.get(name)}, not {value}" for name, value in wanted.items() if headers.get(name) != value
    ]


def _wrong_body(method: str, template: str, body: bytes) -> Iterator[str]:
    if len(body) > BODY_BYTES_MAX:
        yield f"the body is longer than {BODY_BYTES_MAX} bytes"
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        yield f"the body is no JSON: {error}"
        return
    for fault in _body_validator(method, template).iter_errors(value):
        yield f"body {fault.json_path}: {fault.message[:200]}"
    yield from _wrong_values(value, "$")


def _wrong_values(value: Any, path: str) -> Iterator[str]:
    """What holds at every depth: nothing is null, and no result has both a fulfilment and an error."""
    if value is None:
        yield f"body {path} is null"
    elif isinstance(value, dict):
        if "fulfilment" in value and "errorInformation" in value:
            yield f"body {path} has both fulfilment and errorInformation"
        for name, member in value.items():
            yield from _wrong_values(member, f"{path}.{name}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _wrong_values(member, f"{path}[{index}]")


@cache
def _document() -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(DOCUMENT.read_text(), Loader=loader)
    return document


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = _document()
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


@cache
def _header_parameters(method: str, template: str) -> list[dict[str, Any]]:
    path = _document()["paths"][template]
    parameters = path.get("parameters", []) + path[method.lower()].get("parameters", [])
    return [found for found in map(_resolve, parameters) if found["in"] == "header"]


@cache
def _body_validator(method: str, template: str) -> Draft4Validator:
    """OpenAPI 3.0 schemas are JSON Schema as of draft 4 in all that this document uses for transfers."""
    operation = _document()["paths"][template][method.lower()]
    schema = _resolve(operation["requestBody"])["content"]["application/json"]["schema"]
    reference = schema["$ref"]
    resource = DRAFT4.create_resource(_document())
    registry: Registry[Any] = Registry().with_resource("urn:fspiop", resource)
    return Draft4Validator({"$ref": f"urn:fspiop{reference}"}, registry=registry)
