"""The FSPIOP app: POST, GET, PUT and PUT …/error of /bulkTransfers, and GET /health.

    POST /bulkTransfers             payer  202  → topic-bulk-prepare
    GET  /bulkTransfers/{ID}        either 202  → topic-bulk-get
    PUT  /bulkTransfers/{ID}        payee  200  → topic-bulk-fulfil
    PUT  /bulkTransfers/{ID}/error  payee  200  → topic-bulk-fulfil

Checked in this order; the first that fails is the answer, and then nothing was kept or published:

    3002  (404) the path is a resource's · 3000 (405) it has this method
    2003  (503) fewer than `requests_in_flight_max` requests are being read or kept
    3100… the headers (`schemas.fspiop.headers`) · 3101 {ID} is a CorrelationId
    3104  the body ends within `body_bytes_max` · 3000 and within `body_wait_ms`
    3100… the body (`schemas.fspiop.bodies`)
    2003  (503, with Retry-After) object store and stream have it within `publish_wait_ms` (`intake`)

Whether the sender may do what it asks for is not judged here: who is the payer, which FSPs exist, whose bulk it is and
what it has become is for the handlers. A success has an empty body, a refusal has errorInformation.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from bulk_api_adapter.fspiop import intake
from bulk_api_adapter.fspiop.limits import EdgeLimits
from domain.fspiop_errors import ErrorCode
from domain.identifiers import id_bytes
from object_store.interface import ObjectStore
from schemas.fspiop.bodies import parse_post, parse_put, parse_put_error
from schemas.fspiop.errors import ERROR_CONTENT_TYPE, Refusal
from schemas.fspiop.headers import RequestHeaders, check_headers
from schemas.fspiop.types import BulkTransfersIDPutResponse, is_correlation_id
from stream.interface import Stream

_RETRY_AFTER_S = 1


def clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def make_fspiop_app(
    stream: Stream,
    object_store: ObjectStore,
    limits: EdgeLimits | None = None,
    *,
    clock_ms: Callable[[], int] = clock_ms,
) -> FastAPI:
    """The app; its threads end with its lifespan."""
    edge = FspiopEdge(stream, object_store, limits or EdgeLimits(), clock_ms)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(edge.intake.close)

    app = FastAPI(
        title="bulk-switch FSPIOP",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    routes = (
        ("POST", "/bulkTransfers", edge.post),
        ("GET", "/bulkTransfers/{ID}", edge.get),
        ("PUT", "/bulkTransfers/{ID}", edge.put),
        ("PUT", "/bulkTransfers/{ID}/error", edge.put_error),
        ("GET", "/health", edge.health),
    )
    for method, path, endpoint in routes:
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_unknown)
    app.add_exception_handler(Exception, _answer_bug)
    return app


class FspiopEdge:
    """The endpoints, and what they share."""

    def __init__(
        self, stream: Stream, object_store: ObjectStore, limits: EdgeLimits, clock_ms: Callable[[], int]
    ) -> None:
        self.intake = intake.Intake(stream, object_store, limits)
        self._limits = limits
        self._clock_ms = clock_ms
        self._requests_in_flight = 0

    async def post(self, request: Request) -> Response:
        with self._in_flight():
            headers = self._headers(request)
            raw = await self._body(request)
            body = parse_post(raw, self._limits.items_max)
            items = len(body["individualTransfers"])
            await self.intake.prepare(self._checked(body["bulkTransferId"], headers, items, raw))
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def get(self, request: Request) -> Response:
        with self._in_flight():
            headers = self._headers(request)
            await self.intake.get(self._checked(_path_id(request), headers, 1, b""))
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def put(self, request: Request) -> Response:
        with self._in_flight():
            headers = self._headers(request)
            bulk_transfer_id = _path_id(request)
            raw = await self._body(request)
            weight = self._fulfil_weight(parse_put(raw, self._limits.items_max))
            await self.intake.fulfil(self._checked(bulk_transfer_id, headers, weight, raw))
        return Response(status_code=HTTPStatus.OK)

    async def put_error(self, request: Request) -> Response:
        with self._in_flight():
            headers = self._headers(request)
            bulk_transfer_id = _path_id(request)
            raw = await self._body(request)
            parse_put_error(raw)
            # It aborts every item of the bulk, however many those are.
            await self.intake.fulfil_error(self._checked(bulk_transfer_id, headers, self._limits.items_max, raw))
        return Response(status_code=HTTPStatus.OK)

    async def health(self) -> Response:
        services = await self.intake.health()
        healthy = all(services.values())
        body = {
            "status": "OK" if healthy else "DOWN",
            "services": [{"name": name, "status": "OK" if answers else "DOWN"} for name, answers in services.items()],
        }
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(orjson.dumps(body), status, media_type="application/json")

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        if self._requests_in_flight >= self._limits.requests_in_flight_max:
            raise Refusal(ErrorCode.SERVICE_UNAVAILABLE, "too many requests at once, send it again")
        self._requests_in_flight += 1
        try:
            yield
        finally:
            self._requests_in_flight -= 1

    def _headers(self, request: Request) -> RequestHeaders:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        return check_headers(
            request.method,
            headers,
            header_bytes_max=self._limits.header_bytes_max,
            body_bytes_max=self._limits.body_bytes_max,
        )

    async def _body(self, request: Request) -> bytes:
        """The raw body, read no further than its limit; raises Refusal."""
        body = bytearray()
        limits = self._limits
        try:
            async with asyncio.timeout(limits.body_wait_ms / 1000):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limits.body_bytes_max:
                        raise Refusal(
                            ErrorCode.TOO_LARGE_PAYLOAD, f"the body is larger than {limits.body_bytes_max} bytes"
                        )
        except TimeoutError as error:
            raise Refusal(
                ErrorCode.CLIENT_ERROR, f"the body did not end within {limits.body_wait_ms} ms", close=True
            ) from error
        except ClientDisconnect as error:
            # Nobody reads this answer; it only ends the request.
            raise Refusal(ErrorCode.CLIENT_ERROR, "the connection ended before the body did", close=True) from error
        return bytes(body)

    def _fulfil_weight(self, body: BulkTransfersIDPutResponse) -> int:
        """An answer that names no item, or refuses the bulk, aborts them all, as PUT …/error does."""
        items = len(body.get("individualTransferResults", ()))
        state = body["bulkTransferState"]
        if state == "REJECTED" or (state == "COMPLETED" and not items):
            return self._limits.items_max
        return max(items, 1)

    def _checked(self, bulk_transfer_id: str, headers: RequestHeaders, weight: int, raw: bytes) -> intake.Request:
        """The request is received when all of it is here: its sender's promptness is judged by this moment."""
        return intake.Request(id_bytes(bulk_transfer_id), headers, self._clock_ms(), weight, raw)


def _path_id(request: Request) -> str:
    text: str = request.path_params["ID"]
    if not is_correlation_id(text):
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "ID in the path is not a CorrelationId")
    return text


def _answer(refusal: Refusal) -> Response:
    headers = {"Connection": "close"} if refusal.close else {}
    if refusal.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    return Response(refusal.body(), refusal.http_status, headers, media_type=ERROR_CONTENT_TYPE)


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _answer_unknown(request: Request, error: Exception) -> Response:
    """What the router did not find: a path, or a method on it."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not allowed on this resource"
        response = _answer(Refusal(ErrorCode.CLIENT_ERROR, detail, http_status=HTTPStatus.METHOD_NOT_ALLOWED))
        response.headers["Allow"] = ", ".join(sorted(_methods_of_path(request)))
        return response
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _answer(Refusal(ErrorCode.UNKNOWN_URI, "there is no such resource"))
    return _answer(Refusal(ErrorCode.CLIENT_ERROR, HTTPStatus(error.status_code).phrase))


def _methods_of_path(request: Request) -> set[str]:
    return {
        method
        for route in request.app.routes
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _answer_bug(_: Request, __: Exception) -> Response:
    """The server logs the exception when this has been answered."""
    return _answer(Refusal(ErrorCode.INTERNAL_SERVER_ERROR))
