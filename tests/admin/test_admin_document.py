"""Whatever central-ledger's admin document lets a script send, the admin app answers as scripts expect, never with a bug.

The document lists no statuses (`default` stands for all), so what is expected of a success is the reference's (§10): one
status per operation. A refusal is 400, or 404 for what is not there, with errorInformation.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import UNITS
from tests.admin.client import AdminClient, Answered, account_id, admin_client
from tests.openapi_requests import BOUNDED, document, draw_case, operations

NAME = "central-ledger-admin-swagger.json"
RAW = document(NAME)
FSP = "payerfsp"
# Where the reference differs from what the document or custom would say, and why.
EXCEPTIONS = {
    # Existing scripts take exactly this answer as "already done" (reference §11.3).
    ("POST", "/participants/{name}/initialPositionAndLimits", 500): "already set",
}
# The document has these, the reference does not, and nobody's script was seen to use them: there is no such resource.
ABSENT = {("GET", "/enums"), ("POST", "/ledgerAccountTypes")}


def success_of(path: str, method: str) -> int:
    """Reference §10: what is made is 201, what moves money 202, all else 200."""
    if method == "POST":
        return 202 if path.endswith("/accounts/{id}") else 201
    return 202 if path.endswith("/transfers/{transferId}") else 200


@pytest.fixture
def admin(engine: Engine) -> Iterator[AdminClient]:
    provision_fsp(engine, FSP, "USD", 100 * UNITS, 1_000 * UNITS, {})
    with admin_client(engine) as client:
        yield client


def known_or_drawn(data: st.DataObject, name: str, drawn: Any, accounts: list[int]) -> str:
    """A path parameter: what was drawn, or one that leads somewhere."""
    known = {"name": [FSP, "Hub", "nobody"], "id": [*map(str, accounts), "0"]}.get(name, [])
    return str(data.draw(st.sampled_from([*known, str(drawn)])))


def believable(data: st.DataObject, body: Any) -> Any:
    """The drawn body, often with a currency and an action that exist, so that more than its form is looked at."""
    if not isinstance(body, dict) or not data.draw(st.booleans()):
        return body
    better: dict[str, Any] = {
        "currency": "USD",
        "action": data.draw(st.sampled_from(["recordFundsIn", "recordFundsOutPrepareReserve", "recordFundsOutCommit"])),
        "amount": {"amount": 10, "currency": "USD"},
        "limit": {"type": "NET_DEBIT_CAP", "value": 1000, "alarmPercentage": 10},
        "type": data.draw(st.sampled_from(["HUB_RECONCILIATION", "FSPIOP_CALLBACK_URL_TRANSFER_POST"])),
    }
    return {name: better.get(name, value) for name, value in body.items()}


def is_refusal(answered: Answered) -> bool:
    code, description = answered.error
    return bool(re.fullmatch("[0-9]{4}", code)) and 1 <= len(description) <= 128


@pytest.mark.parametrize(("path", "method"), operations(RAW))
@settings(BOUNDED, max_examples=15)
@given(data=st.data())
def test_the_admin_app_answers_what_scripts_expect(
    admin: AdminClient, path: str, method: str, data: st.DataObject
) -> None:
    case = draw_case(data, NAME, path, method)
    accounts = [account_id(admin, FSP, type_) for type_ in ("POSITION", "SETTLEMENT")]
    parameters = {
        name: known_or_drawn(data, name, value, accounts) for name, value in (case.path_parameters or {}).items()
    }
    target = path
    for name, value in parameters.items():
        # A dot segment would name another resource before it is sent.
        target = target.replace(f"{{{name}}}", quote(value, safe="").replace(".", "%2E") or "-")
    query = {name: value for name, value in (case.query or {}).items() if isinstance(value, str | int)}
    target += f"?{urlencode(query)}" if query else ""
    raw = None if case.body is None else json.dumps(believable(data, case.body)).encode()

    answered = admin.send(method, target, raw=raw, headers={"content-type": "application/json"})

    if (method, path) in ABSENT:
        assert answered.status in {404, 405}
    elif answered.status >= 500:
        text = EXCEPTIONS[method, path, answered.status]
        assert text in answered.error[1]
    elif answered.status >= 400:
        assert answered.status in {400, 404}, answered.content
        assert is_refusal(answered)
    else:
        assert answered.status == success_of(path, method)
        assert answered.content != b"null"
