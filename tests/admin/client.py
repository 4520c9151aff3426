"""A synchronous client of the admin app in this process: no socket, the app's own JSON, numbers as Decimal."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
from sqlalchemy import Engine

from bulk_api_adapter.admin.app import make_admin_app
from bulk_api_adapter.admin.provision import ACTOR
from db.audit import Audit, read_audit
from object_store.interface import ObjectStore


@dataclass(frozen=True)
class Answered:
    """What came back; `json` is None when the body was empty."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content, parse_float=Decimal) if self.content else None

    @property
    def error(self) -> tuple[str, str]:
        """errorCode and errorDescription."""
        information = self.json["errorInformation"]
        return information["errorCode"], information["errorDescription"]


class AdminClient:
    """Sends one request after the other."""

    def __init__(self, runner: asyncio.Runner, http: httpx.AsyncClient) -> None:
        self._runner = runner
        self._http = http

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answered:
        """`body` as JSON, or `raw` as it is."""
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = self._http.request(method, path, content=content, headers=headers)
        response = self._runner.run(request)
        return Answered(response.status_code, response.headers, response.content)

    def get(self, path: str) -> Answered:
        return self.send("GET", path)

    def post(self, path: str, body: Any) -> Answered:
        return self.send("POST", path, body)

    def put(self, path: str, body: Any) -> Answered:
        return self.send("PUT", path, body)


@contextmanager
def admin_client(
    engine: Engine, *, token: str | None = None, object_store: ObjectStore | None = None
) -> Iterator[AdminClient]:
    """A client of a fresh app; a bug in the app is raised here."""
    app = make_admin_app(engine, token=token, object_store=object_store)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin")
        try:
            yield AdminClient(runner, http)
        finally:
            runner.run(http.aclose())
            runner.run(lifespan.__aexit__(None, None, None))


def assert_refused(answered: Answered, code: str, text: str, *, status: int = 400) -> None:
    """The request was refused with this code and a description that says `text`."""
    error_code, description = answered.error
    assert (answered.status, error_code) == (status, code), description
    assert text in description


def account_id(client: AdminClient, name: str, ledger_account_type: str, currency: str = "USD") -> int:
    """The id of a participant's account of a type."""
    [found] = [
        account["id"]
        for account in client.get(f"/participants/{name}/accounts").json
        if account["ledgerAccountType"] == ledger_account_type and account["currency"] == currency
    ]
    assert isinstance(found, int)
    return found


def values(client: AdminClient, name: str, currency: str = "USD") -> dict[str, Decimal | int]:
    """What a participant's accounts in a currency hold, by type."""
    accounts = client.get(f"/participants/{name}/accounts?currency={currency}").json
    return {account["ledgerAccountType"]: account["value"] for account in accounts}


def audit_of(engine: Engine) -> list[Audit]:
    """Every act so far that was not provisioning."""
    with engine.connect() as connection:
        return [audit for audit in read_audit(connection) if audit.actor != ACTOR]
