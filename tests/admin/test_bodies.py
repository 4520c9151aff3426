"""Numbers arrive as they were sent, and no body makes the app fail or leaves a trace when it is refused."""

import json
from collections.abc import Iterator
from decimal import Decimal
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from bulk_api_adapter.admin import answers
from bulk_api_adapter.admin.bodies import read_body
from domain.funds import VALUE_END
from domain.money import format_amount, parse_amount
from schemas.fspiop.errors import Refusal
from tests.admin.client import AdminClient, account_id

UNITS = st.integers(-VALUE_END + 1, VALUE_END - 1)


@given(units=UNITS, zeros=st.integers(0, 6))
def test_an_amount_is_the_same_as_a_number_and_as_a_string_with_any_zeros(units: int, zeros: int) -> None:
    number = format_amount(units) + ("" if units % 10_000 else ".0") + "0" * zeros
    assert read_body(f'{{"a": {number}}}'.encode()).units("a") == units
    assert read_body(f'{{"a": "{number}"}}'.encode()).units("a") == units


@given(units=UNITS)
def test_an_amount_is_answered_digit_by_digit(units: int) -> None:  # D26
    content = answers.answer(HTTPStatus.OK, {"value": answers.amount(units)}).body
    assert content == f'{{"value":{format_amount(units)}}}'.encode()
    assert read_body(content).units("value") == units


@pytest.mark.parametrize(
    "number",
    ["1e3", "1E+3", "10e2", "1000.0000000000", "100000e-2", "0.1e4"],
)
def test_a_number_may_be_written_with_an_exponent(number: str) -> None:
    assert read_body(f'{{"a": {number}}}'.encode()).units("a") == parse_amount("1000")


@pytest.mark.parametrize(
    "number",
    [
        "1e18",
        "1e999999999",
        "1e-5",
        "0.00001",
        "-1e18",
        "9" * 19,
        "1" + "0" * 5_000,
        "1e-999999999",
        "0." + "0" * 5_000 + "1",
    ],
)
def test_a_number_beyond_18_and_4_digits_is_3100(number: str) -> None:
    with pytest.raises(Refusal, match=r"^3100 .* a has more than"):
        read_body(f'{{"a": {number}}}'.encode()).units("a")


@pytest.mark.parametrize("number", ["0", "-0", "0.0", "0e999999999", "0e-999999999"])
def test_nothing_is_nothing_however_it_is_written(number: str) -> None:
    assert read_body(f'{{"a": {number}}}'.encode()).units("a") == 0


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"1", b'"a"', b"null", b"\xff", b'{"a": NaN}', b'{"a": Infinity}', b"{'a': 1}", b"\xff\xfe{}\x00",
     b'{"a": 1e99999999999999999999999}', b'{"a": ' + b"[" * 60_000, '{"a": 1}'.encode("utf-16")],
)  # fmt: skip
def test_what_is_not_a_json_object_is_3101(raw: bytes) -> None:
    with pytest.raises(Refusal, match=r"^3101 "):
        read_body(raw)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.decimals(allow_nan=False, allow_infinity=False).map(float).filter(lambda number: abs(number) < 1e300)
    | st.text(max_size=40)
    | st.sampled_from(
        ["", "\x00", "\ud800", "USD", "XXX", "0", "-1", "1e5", "1.00000", "recordFundsIn", "9" * 50, "😀"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


Request = tuple[str, str, dict[str, Any]]


def right_requests(client: AdminClient, fsp: str) -> list[Request]:
    """A right request of every act, none of which has been made."""
    settlement, position = account_id(client, fsp, "SETTLEMENT"), account_id(client, fsp, "POSITION")
    limit = {"type": "NET_DEBIT_CAP", "value": 1000, "alarmPercentage": 10}
    funds = {
        "transferId": str(uuid4()),
        "externalReference": "e",
        "action": "recordFundsIn",
        "reason": "r",
        "amount": {"amount": "1.0", "currency": "USD"},
        "extensionList": {"extension": [{"key": "k", "value": "v"}]},
    }
    model = {
        "name": "MODEL",
        "settlementGranularity": "NET",
        "settlementInterchange": "MULTILATERAL",
        "settlementDelay": "DEFERRED",
        "requireLiquidityCheck": True,
        "ledgerAccountType": "POSITION",
        "autoPositionReset": True,
        "currency": "EUR",
        "settlementAccountType": "SETTLEMENT",
    }
    return [
        ("POST", "/participants", {"name": "payeefsp", "currency": "USD", "isProxy": False}),
        ("PUT", f"/participants/{fsp}", {"isActive": True}),
        ("POST", "/participants/Hub/accounts", {"type": "HUB_RECONCILIATION", "currency": "EUR"}),
        ("PUT", f"/participants/{fsp}/accounts/{position}", {"isActive": True}),
        ("POST", f"/participants/{fsp}/accounts/{settlement}", funds),
        ("PUT", f"/participants/{fsp}/accounts/{settlement}/transfers/{uuid4()}",
         {"action": "recordFundsOutCommit", "reason": "r"}),
        ("POST", f"/participants/{fsp}/initialPositionAndLimits",
         {"currency": "USD", "limit": limit, "initialPosition": 0}),
        ("PUT", f"/participants/{fsp}/limits", {"currency": "USD", "limit": limit}),
        ("POST", f"/participants/{fsp}/endpoints", {"type": "T", "value": "v"}),
        ("POST", "/settlementModels", model),
        ("PUT", "/settlementModels/DEFERREDNET", {"isActive": True}),
    ]  # fmt: skip


@pytest.fixture
def requests(client: AdminClient, fsp: str) -> list[Request]:
    return right_requests(client, fsp)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body, the body itself included."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths_of(inner, (*path, key))


def mutated(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The body with something else at a path."""
    if not path:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[path[0]] = mutated(body[path[0]], path[1:], value)
    return copy


def everything(engine: Engine) -> list[object]:
    """Every row that an act could have changed."""
    tables = ("participant", "participant_currency", "participant_position", "participant_limit", "participant_endpoint",
              "settlement_model", "funds_transfer", "funds_transfer_state_change", "admin_audit")  # fmt: skip
    with engine.connect() as connection:
        return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).all() for table in tables]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=VALUES)
def test_a_mutated_body_is_never_a_5xx_and_a_refusal_leaves_no_trace(
    client: AdminClient,
    engine: Engine,
    requests: list[Request],
    data: st.DataObject,
    value: Any,
) -> None:
    method, path, body = data.draw(st.sampled_from(requests))
    where = data.draw(st.sampled_from(list(paths_of(body))))
    before = everything(engine)
    answered = client.send(method, path, raw=json.dumps(mutated(body, where, value)).encode())
    if answered.status == 500:
        assert "already set" in answered.error[1]  # reference §11.3
    else:
        assert answered.status < 500
    if answered.status >= 400:
        code, description = answered.error
        assert code.isdigit()
        assert 1 <= len(description) <= 128
        assert everything(engine) == before


def test_the_right_requests_are_right(client: AdminClient, fsp: str) -> None:
    """What the test above mutates is accepted as it is, but for what needs another act first or was done."""
    statuses = [client.send(*request).status for request in right_requests(client, fsp)]
    assert statuses == [201, 200, 201, 200, 202, 400, 500, 200, 201, 201, 200]


def test_decimals_of_the_database_are_not_rounded() -> None:
    """The default context of Decimal has 28 digits; the highest sums here have 22."""
    assert Decimal("999999999999999999.9999").scaleb(4) == VALUE_END - 1
