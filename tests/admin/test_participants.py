"""Participants, their accounts and endpoints, as central-ledger's clients expect them (reference §10, §11.1–4, 8–11)."""

import re
from typing import Any

import pytest
from sqlalchemy import Engine

from bulk_api_adapter.admin.settlement_models import add_settlement_model
from db.settlement_models import SettlementModel
from tests.admin.client import AdminClient, account_id, assert_refused, audit_of

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def model(name: str, currency: str | None, ledger: str = "POSITION", settlement: str = "SETTLEMENT") -> SettlementModel:
    return SettlementModel(name, "NET", "MULTILATERAL", "DEFERRED", currency, True, ledger, settlement, True)


def types_of(body: Any, currency: str) -> list[str]:
    return [account["ledgerAccountType"] for account in body["accounts"] if account["currency"] == currency]


def test_the_hub_is_there_from_the_start_and_has_no_accounts(client: AdminClient) -> None:  # reference §11.10
    assert [participant["name"] for participant in client.get("/participants").json] == ["Hub"]
    assert client.get("/participants/Hub/accounts").json == []


def test_a_hub_account_is_made_once_and_is_open(client: AdminClient, engine: Engine) -> None:  # reference §11.2, 11.3
    body = {"type": "HUB_RECONCILIATION", "currency": "USD"}
    made = client.post("/participants/Hub/accounts", body)
    assert made.status == 201
    assert [(a["ledgerAccountType"], a["currency"], a["isActive"]) for a in made.json["accounts"]] == [
        ("HUB_RECONCILIATION", "USD", 1)
    ]
    again = client.post("/participants/Hub/accounts", body)
    assert (again.status, again.error) == (
        400,
        ("3003", "Add Party information error - Hub account has already been registered."),
    )
    assert [audit.action for audit in audit_of(engine)] == ["add_hub_account"]


def test_a_wrong_hub_account_is_refused(client: AdminClient, fsp: str) -> None:
    for name, body, code, text in (
        ("Hub", {"type": "POSITION", "currency": "USD"}, "3003", "account type is not allowed"),
        ("Hub", {"type": "HUB_RECONCILIATION", "currency": "ZZZ"}, "3100", "currency"),
        ("Hub", {"currency": "USD"}, "3102", "type"),
        ("Hub", {"type": "HUB_RECONCILIATION"}, "3102", "currency"),
        ("payerfsp", {"type": "HUB_RECONCILIATION", "currency": "EUR"}, "3003", "reserved for creation of Hub"),
        ("nobody", {"type": "HUB_RECONCILIATION", "currency": "USD"}, "3200", "nobody"),
    ):
        assert_refused(client.post(f"/participants/{name}/accounts", body), code, text)


@pytest.mark.usefixtures("hub")
def test_a_participant_gets_a_closed_pair_of_accounts(client: AdminClient, engine: Engine) -> None:  # reference §11.1
    made = client.post("/participants", {"name": "payerfsp", "currency": "USD"})
    assert made.status == 201
    assert list(made.json) == ["name", "id", "created", "isActive", "links", "accounts", "isProxy"]
    assert made.json["isActive"] == 1
    assert made.json["isProxy"] == 0
    assert made.json["links"] == {"self": made.json["id"]}
    assert made.json["id"].endswith("/participants/payerfsp")
    assert INSTANT.fullmatch(made.json["created"])
    for account in made.json["accounts"]:
        assert list(account) == ["id", "ledgerAccountType", "currency", "isActive", "createdDate", "createdBy"]
        assert account["isActive"] == 0
        assert account["createdBy"] == "anonymous"
        assert INSTANT.fullmatch(account["createdDate"])
    assert types_of(made.json, "USD") == ["POSITION", "SETTLEMENT"]
    assert client.get("/participants/payerfsp").json == made.json
    assert client.get("/participants").json[1] == made.json
    [audit] = audit_of(engine)
    assert (audit.action, audit.subject, audit.before) == ("add_participant", "participants/payerfsp", None)
    assert audit.after is not None
    assert [account["ledgerAccountType"] for account in audit.after["accounts"]] == ["POSITION", "SETTLEMENT"]


@pytest.mark.usefixtures("hub")
def test_a_new_currency_is_added_and_a_known_one_is_refused(client: AdminClient) -> None:  # reference §11.1, 11.3
    assert client.post("/participants", {"name": "payerfsp", "currency": "USD"}).status == 201
    again = client.post("/participants", {"name": "payerfsp", "currency": "USD"})
    assert again.status == 400
    assert "already been registered" in again.error[1]
    for type_ in ("HUB_RECONCILIATION", "HUB_MULTILATERAL_SETTLEMENT"):
        assert client.post("/participants/Hub/accounts", {"type": type_, "currency": "XXX"}).status == 201
    added = client.post("/participants", {"name": "payerfsp", "currency": "XXX"})
    assert added.status == 201
    assert types_of(added.json, "USD") == types_of(added.json, "XXX") == ["POSITION", "SETTLEMENT"]
    assert len(client.get("/participants").json) == 2


def test_a_participant_needs_the_hubs_accounts_and_a_model_first(client: AdminClient, engine: Engine) -> None:
    body = {"name": "payerfsp", "currency": "USD"}
    for type_, missing in (
        ("HUB_RECONCILIATION", "reconciliation account for USD"),
        ("HUB_MULTILATERAL_SETTLEMENT", "multilateral net settlement account for USD"),
    ):
        refused = client.post("/participants", body)
        assert (refused.status, refused.error[0]) == (400, "3100")
        assert missing in refused.error[1]
        client.post("/participants/Hub/accounts", {"type": type_, "currency": "USD"})
    refused = client.post("/participants", body)
    assert (refused.status, refused.error[0]) == (400, "3100")
    assert "Settlement Model" in refused.error[1]
    # Nothing was left behind by the refusals.
    assert client.get("/participants/payerfsp").status == 400
    add_settlement_model(engine, model("DEFERREDNET", None), actor="test")
    assert client.post("/participants", body).status == 201


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([model("USDNET", "USD")], ["POSITION", "SETTLEMENT"]),
        (
            [model("USDNET", "USD"), model("FEE", "USD", "INTERCHANGE_FEE", "INTERCHANGE_FEE_SETTLEMENT")],
            ["POSITION", "SETTLEMENT", "INTERCHANGE_FEE", "INTERCHANGE_FEE_SETTLEMENT"],
        ),
        # A currency with models of its own does not take the default one's.
        (
            [model("USDNET", "USD"), model("FEE", None, "INTERCHANGE_FEE", "INTERCHANGE_FEE_SETTLEMENT")],
            ["POSITION", "SETTLEMENT"],
        ),
        # Without POSITION accounts nobody could pay, so those come from the default one.
        (
            [model("FEE", "USD", "INTERCHANGE_FEE", "INTERCHANGE_FEE_SETTLEMENT"), model("NET", None)],
            ["INTERCHANGE_FEE", "INTERCHANGE_FEE_SETTLEMENT", "POSITION", "SETTLEMENT"],
        ),
        ([model("FEE", "USD", "INTERCHANGE_FEE", "INTERCHANGE_FEE_SETTLEMENT")], None),
        ([model("EURNET", "EUR")], None),
    ],
)
def test_the_accounts_follow_from_the_settlement_models(
    client: AdminClient, engine: Engine, models: list[SettlementModel], expected: list[str] | None
) -> None:  # reference §11.1, 11.10
    for type_ in ("HUB_RECONCILIATION", "HUB_MULTILATERAL_SETTLEMENT"):
        client.post("/participants/Hub/accounts", {"type": type_, "currency": "USD"})
    for one in models:
        add_settlement_model(engine, one, actor="test")
    made = client.post("/participants", {"name": "payerfsp", "currency": "USD"})
    if expected is None:
        assert made.status == 400
    else:
        assert types_of(made.json, "USD") == expected


@pytest.mark.usefixtures("hub")
def test_a_wrong_participant_is_refused_naming_the_field(client: AdminClient) -> None:
    for body, code, field in (
        ({"currency": "USD"}, "3102", "name"),
        ({"name": "payerfsp"}, "3102", "currency"),
        ({"name": None, "currency": "USD"}, "3102", "name"),
        ({"name": 1, "currency": "USD"}, "3101", "name"),
        ({"name": "x", "currency": "USD"}, "3100", "name"),
        ({"name": "x" * 31, "currency": "USD"}, "3100", "name"),
        ({"name": "payer fsp", "currency": "USD"}, "3101", "name"),
        ({"name": "limits", "currency": "USD"}, "3100", "name"),
        ({"name": "pa\x00yer", "currency": "USD"}, "3101", "name"),
        ({"name": "payerfsp", "currency": "usd"}, "3100", "currency"),
        ({"name": "payerfsp", "currency": "DOLLAR"}, "3100", "currency"),
        ({"name": "payerfsp", "currency": "USD", "isProxy": "yes"}, "3101", "isProxy"),
    ):
        assert_refused(client.post("/participants", body), code, field)
    assert len(client.get("/participants").json) == 1


@pytest.mark.usefixtures("hub")
def test_proxies_can_be_listed_alone(client: AdminClient) -> None:
    client.post("/participants", {"name": "payerfsp", "currency": "USD"})
    assert client.post("/participants", {"name": "proxy", "currency": "USD", "isProxy": True}).json["isProxy"] == 1
    assert [p["name"] for p in client.get("/participants?isProxy=true").json] == ["proxy"]
    assert [p["name"] for p in client.get("/participants?isProxy=0").json] == ["Hub", "payerfsp"]


def test_an_unknown_participant_is_3200(client: AdminClient) -> None:
    for name in ("nobody", "no%00body", "%C3%A9", "x" * 200):
        for rest in ("", "/accounts", "/limits", "/positions", "/endpoints"):
            assert_refused(client.get(f"/participants/{name}{rest}"), "3200", "not found")


def test_a_participant_is_closed_and_opened_with_before_and_after(
    client: AdminClient, engine: Engine, fsp: str
) -> None:  # reference §11.9
    closed = client.put(f"/participants/{fsp}", {"isActive": False})
    assert (closed.status, closed.json["isActive"]) == (200, 0)
    assert client.get(f"/participants/{fsp}").json == closed.json
    assert client.put(f"/participants/{fsp}", {"isActive": True}).json["isActive"] == 1
    acts = [(audit.action, audit.subject, audit.before, audit.after) for audit in audit_of(engine)]
    assert acts == [
        ("set_active", "participants/payerfsp", {"isActive": True}, {"isActive": False}),
        ("set_active", "participants/payerfsp", {"isActive": False}, {"isActive": True}),
    ]
    assert client.put(f"/participants/{fsp}", {}).error[0] == "3102"
    assert client.put(f"/participants/{fsp}", {"isActive": "no"}).error[0] == "3101"
    assert client.put("/participants/nobody", {"isActive": True}).error[0] == "3200"
    assert len(audit_of(engine)) == 2


def test_only_a_position_account_is_closed_by_itself(client: AdminClient, engine: Engine, fsp: str) -> None:
    position = account_id(client, fsp, "POSITION")
    closed = client.put(f"/participants/{fsp}/accounts/{position}", {"isActive": False})
    assert (closed.status, closed.content) == (200, b"")
    assert "content-type" not in closed.headers
    assert [account["isActive"] for account in client.get(f"/participants/{fsp}/accounts").json] == [0, 1]
    [audit] = audit_of(engine)
    assert (audit.before, audit.after) == ({"isActive": True}, {"isActive": False})
    settlement = account_id(client, fsp, "SETTLEMENT")
    refused = client.put(f"/participants/{fsp}/accounts/{settlement}", {"isActive": False})
    assert refused.error == ("3100", "Generic validation error - Only position account update is permitted")


def test_an_account_that_the_participant_does_not_have_is_3200(client: AdminClient, fsp: str) -> None:
    hubs = str(account_id(client, "Hub", "HUB_RECONCILIATION"))
    for number in (hubs, "0", "999999", "99999999999999999999", "-1", "x", "%00"):
        refused = client.put(f"/participants/{fsp}/accounts/{number}", {"isActive": False})
        assert_refused(refused, "3200", "has no account")


def test_accounts_show_numbers_and_can_be_asked_for_by_currency(client: AdminClient, fsp: str) -> None:  # §11.4
    accounts = client.get(f"/participants/{fsp}/accounts").json
    assert [list(account) for account in accounts] == [
        ["id", "ledgerAccountType", "currency", "isActive", "value", "reservedValue", "changedDate"]
    ] * 2
    assert [(a["ledgerAccountType"], a["isActive"], a["value"], a["reservedValue"]) for a in accounts] == [
        ("POSITION", 1, 0, 0),
        ("SETTLEMENT", 1, -1000, 0),
    ]
    assert client.get(f"/participants/{fsp}/accounts?currency=USD").json == accounts
    assert client.get(f"/participants/{fsp}/accounts?currency=EUR").json == []
    assert client.get(f"/participants/{fsp}/accounts?currency=%00").error[0] == "3100"


def test_an_endpoint_is_set_and_set_again(client: AdminClient, engine: Engine, fsp: str) -> None:  # §11.8
    bulk = "FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT"
    for type_, value in (
        (bulk, "http://payerfsp.example:1/bulkTransfers/{{id}}"),
        ("SETTLEMENT_TRANSFER_POSITION_CHANGE_EMAIL", "a@b.example"),
        (bulk, "http://payerfsp.example:2/bulkTransfers/{{id}}"),
    ):
        answered = client.post(f"/participants/{fsp}/endpoints", {"type": type_, "value": value})
        assert (answered.status, answered.content) == (201, b"")
    assert client.get(f"/participants/{fsp}/endpoints").json == [
        {"type": bulk, "value": "http://payerfsp.example:2/bulkTransfers/{{id}}"},
        {"type": "SETTLEMENT_TRANSFER_POSITION_CHANGE_EMAIL", "value": "a@b.example"},
    ]
    assert (
        client.get(f"/participants/{fsp}/endpoints?type={bulk}").json["value"].startswith("http://payerfsp.example:2")
    )
    assert client.get(f"/participants/{fsp}/endpoints?type=NONE").json == {}
    last = audit_of(engine)[-1]
    assert last.before == {bulk: "http://payerfsp.example:1/bulkTransfers/{{id}}"}
    assert last.after == {bulk: "http://payerfsp.example:2/bulkTransfers/{{id}}"}


def test_a_wrong_endpoint_is_refused_naming_the_field(client: AdminClient, fsp: str) -> None:
    for body, code, field in (
        ({"type": "A"}, "3102", "value"),
        ({"value": "b"}, "3102", "type"),
        ({"type": "A B", "value": "b"}, "3101", "type"),
        ({"type": "A", "value": "b" * 2049}, "3100", "value"),
        ({"type": "A", "value": ["b"]}, "3101", "value"),
    ):
        assert_refused(client.post(f"/participants/{fsp}/endpoints", body), code, field)
