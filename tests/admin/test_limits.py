"""Limits and positions: set once, changed at once, shown as exact numbers (reference §10, §11.3, 11.7, 11.9)."""

from typing import Any

import pytest
from sqlalchemy import Engine

from tests.admin.client import AdminClient, assert_refused, audit_of


@pytest.fixture
def closed_fsp(client: AdminClient, hub: None) -> str:
    """An FSP whose accounts have not been opened yet."""
    assert client.post("/participants", {"name": "payerfsp", "currency": "USD"}).status == 201
    return "payerfsp"


def first_limit(value: Any, **more: Any) -> dict[str, Any]:
    return {"currency": "USD", "limit": {"type": "NET_DEBIT_CAP", "value": value}, **more}


def test_the_first_limit_opens_the_accounts(client: AdminClient, engine: Engine, closed_fsp: str) -> None:  # §11.1
    made = client.post(f"/participants/{closed_fsp}/initialPositionAndLimits", first_limit(500, initialPosition=-20))
    assert (made.status, made.content) == (201, b"")
    accounts = client.get(f"/participants/{closed_fsp}/accounts").json
    assert [(account["isActive"], account["value"]) for account in accounts] == [(1, -20), (1, 0)]
    limit = {"type": "NET_DEBIT_CAP", "value": 500, "alarmPercentage": 10}
    assert client.get(f"/participants/{closed_fsp}/limits").json == [{"currency": "USD", "limit": limit}]
    audit = audit_of(engine)[-1]
    assert (audit.action, audit.before) == ("initial_position_and_limits", None)
    assert audit.after is not None
    assert audit.after["limit"] == {"type": "NET_DEBIT_CAP", "value": "500", "alarmPercentage": "10"}
    assert audit.after["initialPosition"] == "-20"


def test_a_second_first_limit_is_500_and_changes_nothing(client: AdminClient, engine: Engine, fsp: str) -> None:
    again = client.post(f"/participants/{fsp}/initialPositionAndLimits", first_limit(9, initialPosition=9))
    assert again.status == 500  # reference §11.3
    assert again.error[0] == "2001"
    assert "already set" in again.error[1]
    assert client.get(f"/participants/{fsp}/limits").json[0]["limit"]["value"] == 500
    assert client.get(f"/participants/{fsp}/positions").json[0]["value"] == 0
    assert audit_of(engine) == []


def test_a_limit_is_changed_at_once_with_before_and_after(client: AdminClient, engine: Engine, fsp: str) -> None:
    limit = {"type": "NET_DEBIT_CAP", "value": "4000.00", "alarmPercentage": 12.5}
    changed = client.put(f"/participants/{fsp}/limits", {"currency": "USD", "limit": limit})
    assert changed.status == 200
    assert b'"value":4000,"alarmPercentage":12.5' in changed.content  # reference §11.7: strings in, numbers out
    assert client.get(f"/participants/{fsp}/limits").json == [changed.json]
    # Without an alarm percentage that one stays.
    kept = client.put(f"/participants/{fsp}/limits", {"currency": "USD", "limit": {**limit, "alarmPercentage": None}})
    assert b'"alarmPercentage":12.5' in kept.content
    audit = audit_of(engine)[0]
    assert audit.before == {
        "currency": "USD",
        "limit": {"type": "NET_DEBIT_CAP", "value": "500", "alarmPercentage": "10.00"},
    }
    assert audit.after == {
        "currency": "USD",
        "limit": {"type": "NET_DEBIT_CAP", "value": "4000", "alarmPercentage": "12.50"},
    }


def test_a_limit_of_18_and_4_digits_is_kept_to_the_last_one(client: AdminClient, fsp: str) -> None:  # D26
    highest = "999999999999999999.9999"
    for sent in (highest, f'"{highest}"'):
        raw = f'{{"currency":"USD","limit":{{"type":"NET_DEBIT_CAP","value":{sent},"alarmPercentage":10}}}}'
        changed = client.send("PUT", f"/participants/{fsp}/limits", raw=raw.encode())
        assert f'"value":{highest},'.encode() in changed.content
        assert f'"value":{highest},'.encode() in client.get("/participants/limits").content


def test_a_limit_must_be_there_before_it_is_changed(client: AdminClient, closed_fsp: str) -> None:
    limit = {"type": "NET_DEBIT_CAP", "value": 1, "alarmPercentage": 10}
    refused = client.put(f"/participants/{closed_fsp}/limits", {"currency": "USD", "limit": limit})
    assert (refused.status, refused.error[0]) == (400, "3200")
    refused = client.put(f"/participants/{closed_fsp}/limits", {"currency": "EUR", "limit": limit})
    assert refused.error == ("3200", "Generic ID not found - Participant payerfsp has no account in EUR")


def test_a_wrong_limit_is_refused_naming_the_field(client: AdminClient, engine: Engine, fsp: str) -> None:
    for limit, code, field in (
        (None, "3102", "limit"),
        ([], "3101", "limit"),
        ({"value": 1}, "3102", "limit.type"),
        ({"type": "OTHER", "value": 1}, "3100", "limit.type"),
        ({"type": "NET_DEBIT_CAP"}, "3102", "limit.value"),
        ({"type": "NET_DEBIT_CAP", "value": -1}, "3100", "limit.value"),
        ({"type": "NET_DEBIT_CAP", "value": True}, "3101", "limit.value"),
        ({"type": "NET_DEBIT_CAP", "value": "1e3"}, "3101", "limit.value"),
        ({"type": "NET_DEBIT_CAP", "value": "0.00001"}, "3100", "limit.value"),
        ({"type": "NET_DEBIT_CAP", "value": 10**18}, "3100", "limit.value"),
        ({"type": "NET_DEBIT_CAP", "value": 1, "alarmPercentage": 101}, "3100", "limit.alarmPercentage"),
        ({"type": "NET_DEBIT_CAP", "value": 1, "alarmPercentage": -1}, "3100", "limit.alarmPercentage"),
        ({"type": "NET_DEBIT_CAP", "value": 1, "alarmPercentage": 1.001}, "3100", "limit.alarmPercentage"),
    ):
        body: dict[str, Any] = {"currency": "USD", "limit": limit}
        assert_refused(client.put(f"/participants/{fsp}/limits", body), code, field)
        assert_refused(client.post(f"/participants/{fsp}/initialPositionAndLimits", body), code, field)
    assert audit_of(engine) == []


def test_the_limits_of_all_can_be_asked_for_by_currency_and_type(client: AdminClient, fsp: str) -> None:
    expected = [
        {
            "name": fsp,
            "currency": "USD",
            "limit": {"type": "NET_DEBIT_CAP", "value": 500, "alarmPercentage": 10},
        }
    ]
    for query in ("", "?currency=USD", "?type=NET_DEBIT_CAP", "?currency=USD&type=NET_DEBIT_CAP"):
        assert client.get(f"/participants/limits{query}").json == expected
    assert client.get("/participants/limits?currency=EUR").json == []
    assert client.get("/participants/limits?currency=ZZZ").error[0] == "3100"
    assert client.get("/participants/limits?type=OTHER").error[0] == "3100"


def test_positions_are_an_array_or_one_of_a_currency(client: AdminClient, fsp: str) -> None:  # reference §10, §11.7
    positions = client.get(f"/participants/{fsp}/positions").json
    assert [list(position) for position in positions] == [["currency", "value", "changedDate"]]
    assert (positions[0]["currency"], positions[0]["value"]) == ("USD", 0)
    assert client.get(f"/participants/{fsp}/positions?currency=USD").json == positions[0]
    assert client.get(f"/participants/{fsp}/positions?currency=EUR").error[0] == "3200"
