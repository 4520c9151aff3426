"""A whole switch in this process, on the table stream: the edge on a socket, every handler, a deliverer, two FSPs."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from sqlalchemy import Engine

from bulk_api_adapter.admin.provision import provision_fsp
from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.in_flight import InFlightBound
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.serving import make_server
from db.engine import make_engine
from db.in_flight import in_flight_figures
from db.reference_data import HUB_NAME
from domain.money import parse_amount
from handlers.deliverer import DelivererSettings, DelivererThread
from handlers.delivery_client import ClientLimits
from handlers.host import HANDLER_NAMES, HandlerHost, HandlerWorld
from handlers.loop import LoopLimits
from object_store.folder import FolderObjectStore
from operations.ports import free_ports
from operations.simulated_fsp import BEHAVIOURS, SimulatedPayee, SimulatedPayer, callback_endpoints, served
from operations.spans import Spans
from schemas.callback_addresses import allowed_addresses
from schemas.topics import CATALOGUE
from stream.interface import TopicDescription
from stream.table import TableStream

DEADLINE_S = 60.0


@dataclass
class WholeSwitch:
    """What runs; everything ends with its `with` block."""

    url: str
    engine: Engine
    stream: TableStream
    payer: SimulatedPayer
    payee: SimulatedPayee


@contextmanager
def whole_switch(
    database_url: str, object_store: FolderObjectStore, *, tracing: Spans | None = None
) -> Iterator[WholeSwitch]:
    with ExitStack() as stack:
        engine = make_engine(database_url, application_name="whole", pool_size=60)
        stack.callback(engine.dispose)
        stream = TableStream(engine)
        stack.callback(stream.close)
        stream.create_topics(TopicDescription(one.name, 2, one.retention_ms) for one in CATALOGUE.values())
        limits = LoopLimits(batch_wait_ms=20, pause_ms=5, idle_journal_ms=200)
        host = HandlerHost(
            HANDLER_NAMES,
            HandlerWorld(engine, stream, object_store, HUB_NAME, loop_limits=limits, tracing=tracing, tick_ms=50),
        )
        failures: list[BaseException] = []
        stack.callback(lambda: _require_none(failures))
        stack.enter_context(_thread(partial(_run, host, failures), host.stop))
        client = ClientLimits(allowed=allowed_addresses("loopback"))
        settings = DelivererSettings(idle_poll_ms=100, client=client, tracing=tracing)
        stack.enter_context(DelivererThread(engine, object_store, settings))
        url = stack.enter_context(_edge(engine, stream, object_store, tracing))
        payer = SimulatedPayer("payerfsp", url)
        stack.callback(payer.close_client)
        payee = SimulatedPayee("payeefsp", url, behaviour=BEHAVIOURS["commit"])
        for fsp in (payer, payee):
            endpoints = callback_endpoints(stack.enter_context(served(fsp)))
            amount = parse_amount("1000000")
            provision_fsp(engine, fsp.name, "USD", amount, amount, endpoints)
        yield WholeSwitch(url, engine, stream, payer, payee)


@contextmanager
def _edge(engine: Engine, stream: TableStream, object_store: FolderObjectStore, tracing: Spans | None) -> Iterator[str]:
    limits = EdgeLimits(in_flight_refresh_ms=50)
    in_flight = InFlightBound(partial(in_flight_figures, engine), stream, limits)
    app = make_fspiop_app(stream, object_store, limits, in_flight=in_flight, tracing=tracing)
    [port] = free_ports(1)
    server = make_server(app, "127.0.0.1", port, log_level="warning")

    def stop() -> None:
        server.should_exit = True

    with _thread(server.run, stop):
        _wait_until_started(server)
        yield f"http://127.0.0.1:{port}"


def _wait_until_started(server: uvicorn.Server) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not server.started:
        assert time.monotonic() < deadline, "the edge did not start"
        threading.Event().wait(0.01)


@contextmanager
def _thread(run: object, stop: object) -> Iterator[None]:
    assert callable(run)
    assert callable(stop)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(DEADLINE_S)


def _run(host: HandlerHost, failures: list[BaseException]) -> None:
    try:
        host.run()
    except BaseException as failure:
        failures.append(failure)


def _require_none(failures: Sequence[BaseException]) -> None:
    assert not failures, failures
