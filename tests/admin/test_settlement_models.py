"""Settlement models: made once, shown as made, used only while they are active (reference §10, §11.2, 11.3, 11.10)."""

from sqlalchemy import Engine

from tests.admin.client import AdminClient, assert_refused, audit_of

MODEL = {
    "name": "DEFERREDNETUSD",
    "settlementGranularity": "NET",
    "settlementInterchange": "MULTILATERAL",
    "settlementDelay": "DEFERRED",
    "requireLiquidityCheck": True,
    "ledgerAccountType": "POSITION",
    "autoPositionReset": True,
    "currency": "USD",
    "settlementAccountType": "SETTLEMENT",
}


def test_a_model_is_made_once_and_shown_as_made(client: AdminClient, engine: Engine) -> None:
    made = client.post("/settlementModels", MODEL)
    assert (made.status, made.content) == (201, b"")
    again = client.post("/settlementModels", MODEL)
    assert (again.status, again.error) == (400, ("3000", "Generic client error - Settlement Model already exists"))
    assert client.get("/settlementModels").json == [{**MODEL, "isActive": True}]
    assert client.get("/settlementModels/DEFERREDNETUSD").json == {**MODEL, "isActive": True}
    assert [(audit.action, audit.before) for audit in audit_of(engine)] == [("add_settlement_model", None)]


def test_the_default_model_has_no_currency(client: AdminClient) -> None:
    default = {name: value for name, value in MODEL.items() if name != "currency"}
    assert client.post("/settlementModels", default).status == 201
    assert client.get("/settlementModels/DEFERREDNETUSD").json == {**default, "isActive": True}


def test_an_inactive_model_makes_no_accounts(client: AdminClient, engine: Engine) -> None:
    for type_ in ("HUB_RECONCILIATION", "HUB_MULTILATERAL_SETTLEMENT"):
        client.post("/participants/Hub/accounts", {"type": type_, "currency": "USD"})
    client.post("/settlementModels", MODEL)
    closed = client.put("/settlementModels/DEFERREDNETUSD", {"isActive": False})
    assert (closed.status, closed.json) == (200, {**MODEL, "isActive": False})
    assert "Settlement Model" in client.post("/participants", {"name": "payerfsp", "currency": "USD"}).error[1]
    client.put("/settlementModels/DEFERREDNETUSD", {"isActive": True})
    assert client.post("/participants", {"name": "payerfsp", "currency": "USD"}).status == 201
    changes = [(audit.before, audit.after) for audit in audit_of(engine) if "set_settlement" in audit.action]
    assert changes == [({"isActive": True}, {"isActive": False}), ({"isActive": False}, {"isActive": True})]


def test_an_unknown_model_is_3200(client: AdminClient) -> None:
    for name in ("NONE", "%00"):
        assert_refused(client.get(f"/settlementModels/{name}"), "3200", "does not exist")
        assert_refused(client.put(f"/settlementModels/{name}", {"isActive": False}), "3200", "does not exist")


def test_every_field_but_the_currency_is_needed(client: AdminClient) -> None:
    for field in sorted(set(MODEL) - {"currency"}):
        without = {name: value for name, value in MODEL.items() if name != field}
        assert_refused(client.post("/settlementModels", without), "3102", field)


def test_a_wrong_model_is_refused_naming_the_field(client: AdminClient) -> None:
    for field, value, code in (
        ("name", "A B", "3101"),
        ("settlementGranularity", "SOME", "3100"),
        ("settlementInterchange", "UNILATERAL", "3100"),
        ("settlementDelay", 1, "3101"),
        ("requireLiquidityCheck", "true", "3101"),
        ("ledgerAccountType", "SETTLEMENT", "3100"),
        ("settlementAccountType", "HUB_RECONCILIATION", "3100"),
        # A POSITION account without a SETTLEMENT account beside it would have no cover.
        ("settlementAccountType", "POSITION", "3100"),
        ("currency", "ZZZ", "3100"),
    ):
        assert_refused(client.post("/settlementModels", {**MODEL, field: value}), code, field)
    assert client.get("/settlementModels").json == []
