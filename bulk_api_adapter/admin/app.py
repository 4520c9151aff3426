"""The admin app: the resources of `routes` behind a token, on a port of their own, GET /health and GET /metrics.

Checked in this order; the first that fails is the answer, and then nothing was changed:

    3002  (404) the path is a resource's · 3000 (405) it has this method
    3000  (401) the bearer token, where one is configured (not for GET /health and /metrics)
    3104  the body ends within BODY_BYTES_MAX · 3000 and within BODY_WAIT_MS
    3100… the body and the act
    2003  (503) the database is away, or what the act needs stays locked (`acts.LOCK_WAIT_MS`)

Who acts, for the audit: FSPIOP-Source, else the token's holder, else "anonymous". FSPIOP-Source is what the client says of
itself; who may speak at all is for the token, or for the loopback address when there is none. With no token configured
an Authorization header of someone else's making is ignored (reference §11.11). Nothing that an FSP has opens this app: the
port, the address and the token are its own, and none of the FSPIOP resources is here.
"""

import asyncio
import hmac
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version

import orjson
from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from bulk_api_adapter.admin.routes import ROUTES, AdminRequest, Route
from bulk_api_adapter.bounded_threads import BoundedThreads
from bulk_api_adapter.error_answers import answer, answer_every_error
from bulk_api_adapter.metrics import HttpMetrics
from domain.fspiop_errors import ErrorCode
from object_store.interface import ObjectStore
from schemas.callback_addresses import ONLY_EXTERNAL, AllowedAddresses
from schemas.fspiop.errors import Refusal

BODY_BYTES_MAX = 65_536
BODY_WAIT_MS = 10_000
ACTS_AT_ONCE_MAX = 4

ANONYMOUS = "anonymous"

_ACTOR = re.compile(r"[!-~]{1,128}")


def require_loopback_or_token(host: str, token: str | None) -> None:
    """Raise ValueError when the admin app would be open to others than this machine."""
    if token:
        return
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(
            f"the admin resources move money and would be open to everybody on {host or 'all addresses'}: "
            "configure an admin token, or serve them on 127.0.0.1"
        )


def make_admin_app(
    engine: Engine,
    *,
    token: str | None,
    object_store: ObjectStore | None = None,
    allowed: AllowedAddresses = ONLY_EXTERNAL,
    default_actor: str = "admin",
    base_url: str = "http://central-ledger",
) -> FastAPI:
    """The app; without a token it must be served on loopback only (`require_loopback_or_token`).

    `default_actor` is who acts, for the audit, when the token is all that says it; `base_url` is what links begin with;
    `allowed` are the internal addresses that an endpoint may name; `object_store` is where FSPs' requests are kept.
    """
    admin = _Admin(engine, token, object_store, allowed, default_actor, base_url.rstrip("/"))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        admin.threads.close()
        admin.health_threads.close()

    app = FastAPI(
        title="bulk-switch admin",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for method, path, route in ROUTES:
        app.add_api_route(path, admin.endpoint(route), methods=[method], response_model=None)
    app.add_api_route("/health", admin.health, methods=["GET"], response_model=None)
    HttpMetrics().install(app)
    answer_every_error(app)
    for kind in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(kind, _answer_unavailable)
    return app


class _Admin:
    """The endpoints, and what they share."""

    def __init__(
        self,
        engine: Engine,
        token: str | None,
        object_store: ObjectStore | None,
        allowed: AllowedAddresses,
        default_actor: str,
        base_url: str,
    ) -> None:
        self._engine = engine
        self._object_store = object_store
        self._allowed = allowed
        self._token = token or None
        self._default_actor = default_actor
        self._base_url = base_url
        self._start_time = datetime.now(UTC)
        self.threads = BoundedThreads(ACTS_AT_ONCE_MAX, "admin")
        # Acts that wait for locks must not make the process look dead.
        self.health_threads = BoundedThreads(1, "admin-health")

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            self._require_token(request)
            admin_request = AdminRequest(
                engine=self._engine,
                base_url=self._base_url,
                actor=self._actor(request),
                allowed=self._allowed,
                object_store=self._object_store,
                path=request.path_params,
                query=request.query_params,
                raw_body=await _read_body(request),
            )
            answer = await self.threads.run(lambda: route(admin_request))
            return Response(answer.body, answer.status, media_type="application/json" if answer.body else None)

        return run

    async def health(self) -> Response:
        """OK when the database answers."""
        try:
            await self.health_threads.run(self._ask_database)
            is_up = True
        except (OperationalError, InterfaceError, PoolTimeoutError):
            is_up = False
        text_ = "OK" if is_up else "DOWN"
        body = {
            "status": text_,
            "uptime": (datetime.now(UTC) - self._start_time).total_seconds(),
            "startTime": f"{self._start_time:%Y-%m-%dT%H:%M:%S}.{self._start_time.microsecond // 1000:03d}Z",
            "versionNumber": version("bulk-transfer-switch"),
            "services": [{"name": "datastore", "status": text_}],
        }
        status = HTTPStatus.OK if is_up else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(orjson.dumps(body), status, media_type="application/json")

    def _ask_database(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def _require_token(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
            raise Refusal(
                ErrorCode.CLIENT_ERROR, "the admin bearer token is needed", http_status=HTTPStatus.UNAUTHORIZED
            )

    def _actor(self, request: Request) -> str:
        source = request.headers.get("fspiop-source", "")
        if _ACTOR.fullmatch(source):
            return source
        return ANONYMOUS if self._token is None else self._default_actor


async def _read_body(request: Request) -> bytes:
    """The raw body, read no further than its limit."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WAIT_MS / 1000):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise Refusal(ErrorCode.TOO_LARGE_PAYLOAD, f"the body is larger than {BODY_BYTES_MAX} bytes")
    except TimeoutError as error:
        raise Refusal(ErrorCode.CLIENT_ERROR, f"the body did not end within {BODY_WAIT_MS} ms", close=True) from error
    return bytes(body)


async def _answer_unavailable(_: Request, __: Exception) -> Response:
    """The act was rolled back; sending it again is safe."""
    return answer(Refusal(ErrorCode.SERVICE_UNAVAILABLE, "the database does not answer, send it again"))
