"""What an FSP holds opens the FSPIOP resources alone, and only in its own name; the admin app stays closed to it."""

import asyncio
import hmac
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import Engine

from bulk_api_adapter.admin.app import make_admin_app
from bulk_api_adapter.admin.keys import add_key
from bulk_api_adapter.admin.provision import provision_fsp
from bulk_api_adapter.admin.routes import ROUTES
from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.authority import Authority, Signatures
from operations.edge_process import require_guarded_admin
from operations.settings import Settings, SettingsError
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.requests import BULK_ID, Edge, error_body, headers, post_body, put_body
from tests.fspiop.signing import key_pair, signed

BULK = f"/bulkTransfers/{BULK_ID}"
REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/bulkTransfers", post_body()),
    ("GET", BULK, None),
    ("PUT", BULK, put_body()),
    ("PUT", f"{BULK}/error", error_body()),
]


def encoded(body: Any) -> bytes:
    return b"" if body is None else orjson.dumps(body)


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_the_gateways_client_is_the_source(method: str, path: str, body: Any) -> None:
    edge = Edge()
    refused = edge.send(method, path, headers(method, x_client_id="otherfsp"), encoded(body))
    assert (refused.status_code, refused.json()["errorInformation"]["errorCode"]) == (400, "3100")
    assert edge.untouched()
    assert edge.send(method, path, headers(method, x_client_id="payerfsp"), encoded(body)).is_success
    edge.close()


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_what_is_not_signed_by_its_source_is_neither_kept_nor_published(
    engine: Engine, method: str, path: str, body: Any
) -> None:
    for name in ("payerfsp", "thirdfsp"):
        provision_fsp(engine, name, "USD", 0, 0, {})
        add_key(engine, name, key_pair(name).public, actor="tests")
    authority = Authority(engine, Signatures.REQUIRED)
    edge = Edge()
    edge.app = make_fspiop_app(edge.stream, edge.store, authority=authority)
    content = encoded(body)
    own, third = key_pair("payerfsp").signer, key_pair("thirdfsp").signer
    wrong = [signed(third, method, path, content), signed(own, method, path, content + b" ")]
    if method != "GET":
        wrong.append(headers(method))

    async def exchange() -> tuple[list[httpx.Response], bool, httpx.Response]:
        refused = [await edge.exchange(method, path, values, content) for values in wrong]
        return refused, edge.untouched(), await edge.exchange(method, path, signed(own, method, path, content), content)

    refused, untouched, taken = asyncio.run(exchange())
    assert [(one.status_code, one.json()["errorInformation"]["errorCode"]) for one in refused] == [
        (400, "3105") for _ in wrong
    ]
    assert untouched
    assert taken.is_success
    assert not edge.untouched()
    edge.close()
    authority.close()


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    return [
        (method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in route.methods or ()
    ]


def ask(app: FastAPI, method: str, path: str, values: dict[str, str], content: bytes = b"{}") -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.request(method, path, headers=values, content=content)

    return asyncio.run(send())


def filled(path: str) -> str:
    for variable, value in {"{name}": "payerfsp", "{id}": "1", "{transferId}": BULK_ID, "{ID}": BULK_ID}.items():
        path = path.replace(variable, value)
    return path


def test_no_fsp_can_say_where_callbacks_go_or_with_which_key(engine: Engine) -> None:
    # What an FSP can reach has no resource of the admin app's, and the admin app none of FSPIOP's.
    fspiop = make_fspiop_app(MemoryStream(), MemoryObjectStore())
    admin = make_admin_app(engine, token=None)
    both = {("GET", "/health"), ("GET", "/metrics")}
    resources = {path.split("/")[1] for _, path in routes_of(fspiop)} - {"health", "metrics"}
    assert resources <= {"bulkTransfers", "transfers"}
    for method, path, _ in ROUTES:
        refused = ask(fspiop, method, filled(path), headers())
        assert (refused.status_code, refused.json()["errorInformation"]["errorCode"]) == (404, "3002")
    for method, path in set(routes_of(fspiop)) - both:
        refused = ask(admin, method, filled(path), headers())
        assert (refused.status_code, refused.json()["errorInformation"]["errorCode"]) == (404, "3002")


def test_an_fsps_credentials_do_not_open_the_admin_app(engine: Engine) -> None:
    admin = make_admin_app(engine, token="s3cret")
    own = signed(key_pair("payerfsp").signer, "GET", "/participants", b"{}")
    for values in (
        headers(),
        {**own, "x-client-id": "payerfsp"},
        {**own, "authorization": f"Bearer {own['fspiop-signature']}"},
        {**headers(fspiop_source="Hub"), "authorization": "Bearer payerfsp"},
        {**headers(), "authorization": "Bearer s3cre"},
        {**headers(), "authorization": "Bearer "},
    ):
        for method, path, _ in ROUTES:
            assert ask(admin, method, filled(path), values).status_code == 401


def test_the_token_is_compared_in_constant_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def note(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr("bulk_api_adapter.admin.app.hmac.compare_digest", note)
    admin = make_admin_app(engine, token="s3cret")
    assert ask(admin, "GET", "/participants", {"authorization": "Bearer s3cret"}).status_code == 200
    assert ask(admin, "GET", "/participants", {"authorization": "Bearer s3creT"}).status_code == 401
    assert compared == [(b"s3cret", b"s3cret"), (b"s3creT", b"s3cret")]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "admin.example"])
def test_the_admin_app_does_not_start_open_to_others(host: str) -> None:
    with pytest.raises(SettingsError, match=r"BULK_SWITCH_ADMIN_HOST.*configure an admin token"):
        require_guarded_admin(Settings(admin_host=host, data_folder=Path("unused")))
    require_guarded_admin(Settings(admin_host=host, admin_token="s3cret", data_folder=Path("unused")))
