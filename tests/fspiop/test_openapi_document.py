"""Whatever the OpenAPI 1.1 document lets an FSP send, the running edge answers as that document says, never with a bug."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.fspiop.requests import headers, transfer_headers
from tests.fspiop.test_serving import Running, running
from tests.openapi_requests import BOUNDED, document, draw_case, operations

NAME = "fspiop-v1.1-openapi3.yaml"
OURS = ("/bulkTransfers", "/transfers")
RAW = document(NAME, OURS)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def documented(path: str, method: str) -> dict[int, Any]:
    """The operation's statuses with the schema of each one's body, None where it has none."""
    found = {}
    for status, response in RAW["paths"][path][method.lower()]["responses"].items():
        if "$ref" in response:
            response = RAW["components"]["responses"][response["$ref"].rpartition("/")[2]]
        content = response.get("content", {}).get("application/json", {})
        found[int(status)] = content.get("schema")
    return found


def fits(value: Any, schema: Any) -> bool:
    whole = {**schema, "components": RAW["components"]}
    return Draft202012Validator(whole).is_valid(value)


def sendable(case: Any, path: str, method: str, *, with_good_headers: bool) -> list[tuple[bytes, bytes]]:
    """The drawn headers; what the drawn names lack, or all that matter, are those of a well-behaved FSP."""
    make = transfer_headers if path.startswith("/transfers") else headers
    drawn = {name.lower(): str(value) for name, value in (case.headers or {}).items()}
    # How long the body is is HTTP's own affair.
    drawn.pop("content-length", None)
    good = make(method if method != "PATCH" else "PUT")
    values = {**drawn, **good} if with_good_headers else {**good, **drawn}
    # What a client cannot put on the wire is no request of the document's; test_serving looks at such.
    assume(all(value.isprintable() and value == value.strip() for value in values.values()))
    try:
        return [(name.encode(), value.encode("latin-1")) for name, value in values.items()]
    except UnicodeEncodeError:
        reject()


@pytest.mark.parametrize(("path", "method"), operations(RAW))
@BOUNDED
@given(data=st.data(), good_headers=st.booleans(), good_id=st.uuids(version=4))
def test_the_edge_answers_what_the_document_lists(
    server: Running,
    client: httpx.Client,
    path: str,
    method: str,
    data: st.DataObject,
    good_headers: bool,
    good_id: UUID,
) -> None:
    """D25: with headers and an id of the document's own making, or with good ones, so that the body is looked at too."""
    case = draw_case(data, NAME, path, method, OURS)
    sent = sendable(case, path, method, with_good_headers=good_headers)
    target = path.replace("{ID}", str(good_id)) if good_headers else case.formatted_path
    content = b"" if method == "GET" else json.dumps(case.body).encode()
    kept, published = len(server.store.objects), len(server.stream.records)

    response = client.request(method, target, headers=sent, content=content)

    statuses = documented(path, method)
    assert response.status_code < 500, response.text
    assert response.status_code in statuses, response.text
    if response.is_success:
        assert response.content == b""
        assert len(server.stream.records) - published <= 1
    else:
        schema = statuses[response.status_code]
        assert schema is not None
        assert fits(response.json(), schema), response.text
        assert (len(server.store.objects), len(server.stream.records)) == (kept, published)
