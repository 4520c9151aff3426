"""The admin app itself: its token, who is written down as the actor, its limits, and what it says when it cannot act."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import Engine

from bulk_api_adapter.admin import acts
from bulk_api_adapter.admin.app import BODY_BYTES_MAX, require_loopback_or_token
from bulk_api_adapter.admin.routes import ROUTES
from db.engine import make_engine
from db.positions import lock_positions
from tests.admin.client import AdminClient, account_id, admin_client, assert_refused, audit_of

SWAGGER = Path(__file__).parents[2] / "../shared/fspiop/central-ledger-admin-swagger.json"
# What the document has beyond the resources of reference §10.
NOT_OURS = {
    ("GET", "/enums"),
    ("POST", "/ledgerAccountTypes"),
}

# What the document does not have.
OURS = {
    ("POST", "/participants/{name}/keys"),
    ("GET", "/participants/{name}/keys"),
    ("PUT", "/participants/{name}/keys/{id}"),
}


@pytest.fixture(scope="session")
def swagger() -> Any:
    if not SWAGGER.exists():
        pytest.skip("../shared/fspiop is not there: the central-ledger admin document is needed")
    return json.loads(SWAGGER.read_text())


def test_every_resource_of_the_document_is_there(swagger: Any) -> None:
    wanted = {(method.upper(), path) for path, methods in swagger["paths"].items() for method in methods}
    there = {(method, path) for method, path, _ in ROUTES} | {("GET", "/health"), ("GET", "/metrics")}
    assert wanted - NOT_OURS == there - OURS


def test_the_answer_whose_shape_the_document_gives_has_it(client: AdminClient, swagger: Any) -> None:
    responses = swagger["paths"]["/ledgerAccountTypes"]["get"]["responses"]
    schema = {**responses["default"]["schema"], "definitions": swagger["definitions"]}
    types = client.get("/ledgerAccountTypes").json
    jsonschema.validate(types, schema)
    assert {"POSITION", "SETTLEMENT", "HUB_RECONCILIATION", "INTERCHANGE_FEE"} <= {type_["name"] for type_ in types}


def test_every_currency_of_the_document_is_known(swagger: Any, client: AdminClient) -> None:
    for currency in swagger["definitions"]["Currency"]["enum"]:
        assert client.get(f"/participants/limits?currency={currency}").status == 200


@pytest.mark.parametrize("path", ["/participants/payerfsp/accounts", "/settlementModels"])
def test_with_a_token_only_its_bearer_is_let_in(engine: Engine, path: str) -> None:
    with admin_client(engine, token="s3cret") as client:
        for authorization in (
            None,
            "Bearer",
            "Bearer wrong",
            "Bearer s3cret2",
            "Basic s3cret",
            "s3cret",
            "Bearer \xe9",
        ):
            headers: dict[str, Any] = (
                {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
            )
            refused = client.send("GET", path, headers=headers)
            assert_refused(refused, "3000", "token", status=401)
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.send("GET", path, headers={"Authorization": "bearer s3cret"}).status != 401
        assert client.get("/health").status == 200


def test_a_request_without_the_token_changes_nothing(engine: Engine) -> None:
    with admin_client(engine, token="s3cret") as client:
        body = {"type": "HUB_RECONCILIATION", "currency": "USD"}
        assert client.post("/participants/Hub/accounts", body).status == 401
    assert audit_of(engine) == []


def test_without_a_token_foreign_authorization_is_ignored(client: AdminClient) -> None:  # reference §11.11
    for authorization in ("Bearer of.someone.else", "Basic abc", "nonsense"):
        assert client.send("GET", "/participants", headers={"Authorization": authorization}).status == 200


@pytest.mark.parametrize(
    ("token", "source", "actor"),
    [
        (None, "hub_operator", "hub_operator"),
        (None, "payerfsp", "payerfsp"),
        (None, None, "anonymous"),
        (None, "x" * 200, "anonymous"),
        ("s3cret", None, "admin"),
        ("s3cret", "hub_operator", "hub_operator"),
    ],
)
def test_the_audit_names_the_actor(engine: Engine, token: str | None, source: str | None, actor: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if source:
        headers["FSPIOP-Source"] = source
    with admin_client(engine, token=token) as client:
        body = {"type": "HUB_RECONCILIATION", "currency": "USD"}
        assert client.send("POST", "/participants/Hub/accounts", body, headers=headers).status == 201
    assert [audit.actor for audit in audit_of(engine)] == [actor]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    require_loopback_or_token(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "admin.example", "127.0.0.1.example"])
def test_any_other_host_needs_a_token(host: str) -> None:
    require_loopback_or_token(host, "s3cret")
    for token in (None, ""):
        with pytest.raises(ValueError, match="token"):
            require_loopback_or_token(host, token)


def test_health_says_when_it_started_and_that_the_database_answers(client: AdminClient) -> None:
    health = client.get("/health")
    assert health.status == 200
    assert health.json["status"] == "OK"
    assert health.json["services"] == [{"name": "datastore", "status": "OK"}]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{3}Z", health.json["startTime"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", health.json["versionNumber"])


def test_metrics_count_requests_by_route_and_never_by_what_was_typed(engine: Engine) -> None:
    with admin_client(engine, token="s3cret") as client:
        for path in ("/participants/a1", "/participants/b2", "/nothing/c3"):
            client.get(path)
        client.send("BREW", "/participants/d4")
        metrics = client.get("/metrics")
    assert metrics.status == 200
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    lines = metrics.content.decode().splitlines()
    counts = sorted(line for line in lines if line.startswith("http_requests_total"))
    assert counts == [
        'http_requests_total{method="GET",route="/participants/{name}",status="401"} 2.0',
        'http_requests_total{method="GET",route="unknown",status="404"} 1.0',
        'http_requests_total{method="other",route="/participants/{name}",status="405"} 1.0',
    ]
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    assert 'http_request_duration_seconds_count{method="GET",route="/participants/{name}"} 2.0' in lines


def test_a_database_that_is_away_is_503() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing", application_name="tests")
    with admin_client(engine) as client:
        health = client.get("/health")
        assert (health.status, health.json["status"]) == (503, "DOWN")
        refused = client.get("/participants")
        assert_refused(refused, "2003", "send it again", status=503)
        assert refused.headers["retry-after"] == "1"


def test_an_account_that_stays_locked_is_503_and_changes_nothing(
    client: AdminClient, engine: Engine, fsp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "LOCK_WAIT_MS", 50)
    position = account_id(client, fsp, "POSITION")
    body = {"currency": "USD", "limit": {"type": "NET_DEBIT_CAP", "value": 1, "alarmPercentage": 10}}
    with engine.begin() as handler:
        lock_positions(handler, [position])
        assert_refused(client.put(f"/participants/{fsp}/limits", body), "2003", "send it again", status=503)
    assert client.get(f"/participants/{fsp}/limits").json[0]["limit"]["value"] == 500
    assert client.put(f"/participants/{fsp}/limits", body).status == 200


def test_what_is_not_a_resource_is_404_and_what_it_cannot_do_405(client: AdminClient) -> None:
    assert_refused(client.get("/nothing"), "3002", "no such resource", status=404)
    assert_refused(client.get("/participants/"), "3002", "no such resource", status=404)
    refused = client.send("DELETE", "/participants/payerfsp")
    assert_refused(refused, "3000", "DELETE is not allowed", status=405)
    assert refused.headers["allow"] == "GET, PUT"


def test_a_body_that_is_too_large_is_3104(client: AdminClient) -> None:
    raw = b'{"name": "' + b"x" * BODY_BYTES_MAX + b'"}'
    assert_refused(client.send("POST", "/participants", raw=raw), "3104", f"{BODY_BYTES_MAX} bytes")
