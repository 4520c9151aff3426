"""The FSPIOP app: /bulkTransfers (`bulk_transfers`), /transfers (`transfers`) and GET /health.

Checked in this order; the first that fails is the answer, and then nothing was kept or published:

    3002  (404) the path is a resource's · 3000 (405) it has this method
    2003  (503) fewer than `requests_in_flight_max` requests are being read or kept
    2003  (503, with Retry-After) stream and object store are not known to be away (`circuit`)
    2003  (503, with Retry-After) a POST: what is in flight is known (`in_flight`)
    3100… the headers (`schemas.fspiop.headers`) · 3101 {ID} is a CorrelationId
    3104  the body ends within `body_bytes_max` · 3000 and within `body_wait_ms`
    3100… the body (`schemas.fspiop.bodies`)
    3105  the source has signed it, where the scheme asks for that (`authority`)
    3100  PUT /transfers/{ID}: completedTimestamp is not ahead (`transfers`)
    2003  (503, with Retry-After) a POST: the payer has room for it in flight (`in_flight`)
    2003  (503, with Retry-After) object store and stream have it within `publish_wait_ms` (`intake`)

Whether the sender may do what it asks for is not judged here: who is the payer, which FSPs exist, whose transfer it is and
what it has become is for the handlers. A success has an empty body, a refusal has errorInformation (`answers`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Response

from bulk_api_adapter.error_answers import answer_every_error
from bulk_api_adapter.fspiop.authority import Authority
from bulk_api_adapter.fspiop.bulk_transfers import BulkTransfers
from bulk_api_adapter.fspiop.in_flight import InFlightBound, Unbounded
from bulk_api_adapter.fspiop.intake import Intake
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.reception import Reception
from bulk_api_adapter.fspiop.transfers import Transfers
from bulk_api_adapter.metrics import HttpMetrics
from bulk_api_adapter.tracing import RequestTracing, TracingMiddleware
from object_store.interface import ObjectStore
from stream.interface import Stream


def clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def make_fspiop_app(
    stream: Stream,
    object_store: ObjectStore,
    limits: EdgeLimits | None = None,
    *,
    authority: Authority | None = None,
    in_flight: InFlightBound | None = None,
    tracing: RequestTracing | None = None,
    clock_ms: Callable[[], int] = clock_ms,
) -> FastAPI:
    """The app; its threads, and those of what it is given, end with its lifespan.

    Without `authority` no signature is looked at; without `in_flight` nobody's transfers are counted;
    without `tracing` no trace is begun or carried on, but that of a record's own sender.
    """
    limits = limits or EdgeLimits()
    intake = Intake(stream, object_store, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if in_flight is not None:
                await stack.enter_async_context(in_flight.running())
            yield
        await asyncio.to_thread(intake.close)
        if authority is not None:
            authority.close()

    app = FastAPI(
        title="bulk-switch FSPIOP",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    reception = Reception(limits, clock_ms, authority)
    bulks = BulkTransfers(reception, in_flight or Unbounded(), intake, limits)
    transfers = Transfers(reception, in_flight or Unbounded(), intake, limits)
    routes = (
        ("POST", "/bulkTransfers", bulks.post),
        ("GET", "/bulkTransfers/{ID}", bulks.get),
        ("PUT", "/bulkTransfers/{ID}", bulks.put),
        ("PUT", "/bulkTransfers/{ID}/error", bulks.put_error),
        ("POST", "/transfers", transfers.post),
        ("GET", "/transfers/{ID}", transfers.get),
        ("PUT", "/transfers/{ID}", transfers.put),
        ("PUT", "/transfers/{ID}/error", transfers.put_error),
        ("GET", "/health", _health_of(intake)),
    )
    for method, path, endpoint in routes:
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    metrics = HttpMetrics()
    answer_every_error(app, metrics.count_refusal)
    if tracing is not None:
        app.add_middleware(TracingMiddleware, tracing=tracing)
    metrics.install(app)
    return app


def _health_of(intake: Intake) -> Callable[[], object]:
    async def health() -> Response:
        services = await intake.health()
        healthy = all(services.values())
        body = {
            "status": "OK" if healthy else "DOWN",
            "services": [{"name": name, "status": "OK" if answers else "DOWN"} for name, answers in services.items()],
        }
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(orjson.dumps(body), status, media_type="application/json")

    return health
