"""What the processes expose is what happened, also when a dependency is away, and all that board and alerts ask for."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus

import httpx
import orjson
import pytest
from sqlalchemy import Engine

from db.engine import make_engine
from domain.combinations import TOPIC_BULK_PROCESSING
from handlers.handler import Output
from handlers.metrics import REGISTRY, LoopMetrics, note_refused_bulk
from object_store.folder import FolderObjectStore
from operations.collection import Collection, CollectionLimits, registry_of
from operations.health_port import health_port, process_registry
from operations.ports import free_ports
from operations.simulated_bulk import Bulk
from operations.simulated_fsp import BEHAVIOURS
from schemas.messages import BulkProcessing
from stream.table import TableStream
from tests.watching.exposed import Exposed, text_of
from tests.watching.files import alert_expressions, board_expressions, unknown
from tests.watching.whole_switch import DEADLINE_S, WholeSwitch, whole_switch

DEPENDENCIES = ("database", "stream", "object_store")
# Past the net debit cap that every FSP has here.
TOO_MUCH = "2000000"
NET_DEBIT_CAP_CODE = "4001"
LIMITS = CollectionLimits(interval_ms=1_000, wait_ms=5_000, stale_ms=10_000)


def collected(switch: WholeSwitch, object_store: FolderObjectStore) -> Exposed:
    """What the exporter tells of this switch now."""
    collection = Collection(switch.engine, switch.stream, object_store, LIMITS)
    for dependency in DEPENDENCIES:
        collection.read_once(dependency)
    return Exposed(text_of(registry_of(collection)))


def build_bulk(switch: WholeSwitch, *amounts: str) -> tuple[Bulk, float]:
    """A bulk of items with these amounts, and what the affordable ones come to."""
    bulk = switch.payer.build("payeefsp", items=len(amounts))
    body = orjson.loads(bulk.body)
    for one, amount in zip(body["individualTransfers"], amounts, strict=True):
        one["transferAmount"]["amount"] = amount
    return replace(bulk, body=orjson.dumps(body)), sum(float(amount) for amount in amounts if amount != TOO_MUCH)


def grown_since(before: Exposed, name: str, **labels: str) -> float:
    """By how much a counter of this process has grown."""
    return Exposed(text_of(REGISTRY)).value(name, **labels) - before.value(name, **labels)


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def test_processes_expose_what_happened_and_what_the_board_and_the_alerts_ask_for(
    database_url: str, object_store: FolderObjectStore
) -> None:
    before = Exposed(text_of(REGISTRY))
    with whole_switch(database_url, object_store) as switch:
        bulk, committed = build_bulk(switch, TOO_MUCH, "10", "5.5")
        assert switch.payer.post(bulk).status == 202
        switch.payer.wait_for(bulk.bulk_transfer_id, timeout_s=DEADLINE_S)
        switch.payee.wait_for(bulk.bulk_transfer_id, 2, timeout_s=DEADLINE_S)
        # From now on the payee takes nothing: this bulk stays open, its forward waits.
        switch.payee.behaviour = BEHAVIOURS["silent"]
        switch.payee.status_of = lambda method, _path: 503 if method == "POST" else None
        unanswered, reserved = build_bulk(switch, "7", "0.25")
        assert switch.payer.post(unanswered).status == 202
        refused = {"fsp": "payeefsp", "callback": "POST", "outcome": "refused_5xx"}
        wait_until(lambda: grown_since(before, "bulk_switch_callback_attempts_total", **refused) >= 1)
        assert switch.payer.get(bulk.bulk_transfer_id, accept="nonsense").status == 400
        edge = Exposed(httpx.get(f"{switch.url}/metrics", trust_env=False).text)
        exporter = collected(switch, object_store)
    handlers = Exposed(text_of(REGISTRY, process_registry()))

    assert grown_since(before, "bulk_switch_batch_messages_sum", handler="prepare") == 5
    assert (
        grown_since(before, "bulk_switch_refusals_total", handler="position", kind="item", code=NET_DEBIT_CAP_CODE) == 1
    )
    assert (
        grown_since(before, "bulk_switch_callback_attempts_total", fsp="payerfsp", callback="PUT", outcome="delivered")
        == 1
    )
    assert edge.value("bulk_switch_edge_refusals_total", code="3101") == 1
    assert exporter.value("bulk_switch_bulks_open", state="ACCEPTED") == 1
    assert exporter.value("bulk_switch_bulks_open", state="PROCESSING") == 0
    assert exporter.value("bulk_switch_transfers_open", payer="payerfsp") == 2
    assert exporter.value("bulk_switch_callbacks_waiting", fsp="payeefsp") == 1
    assert exporter.value("bulk_switch_handler_instances", handler="timeout") == 1
    of_payer = {"participant": "payerfsp", "currency": "USD"}
    assert exporter.value("bulk_switch_position_amount", **of_payer) == committed + reserved
    assert exporter.value("bulk_switch_cover_amount", **of_payer) == 1_000_000
    assert {exporter.value("bulk_switch_dependency_up", dependency=name) for name in DEPENDENCIES} == {1}

    everything = Exposed(*handlers.texts, *edge.texts, *exporter.texts)
    asked = [*board_expressions(), *alert_expressions()]
    assert len(asked) > 50
    assert {place: trouble for place, one, shown in asked if (trouble := unknown(one, shown, everything))} == {}


@pytest.fixture
def nowhere() -> Iterator[Engine]:
    """A database that is away."""
    [port] = free_ports(1)
    engine = make_engine(f"postgresql://switch@127.0.0.1:{port}/switch", application_name="nowhere")
    yield engine
    engine.dispose()


def test_a_database_that_is_away_takes_its_figures_with_it_and_nothing_else(
    nowhere: Engine, object_store: FolderObjectStore
) -> None:
    collection = Collection(nowhere, TableStream(nowhere), object_store, LIMITS)
    [port] = free_ports(1)
    with health_port("127.0.0.1", port, dict, [process_registry(), registry_of(collection)]):
        for _ in range(2):
            for dependency in DEPENDENCIES:
                collection.read_once(dependency)
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert answer.status_code == HTTPStatus.OK
    told = Exposed(answer.text)
    assert told.value("bulk_switch_collection_failures_total", part="accounts") == 2
    assert told.value("bulk_switch_collection_failures_total", part="lag") == 2
    up = {name: told.value("bulk_switch_dependency_up", dependency=name) for name in DEPENDENCIES}
    assert up == {"database": 0, "stream": 0, "object_store": 1}
    assert "bulk_switch_bulks_open" not in told.names()
    assert told.value("process_resident_memory_bytes") > 0


def test_a_dependency_that_hangs_neither_keeps_a_scrape_waiting_nor_leaves_old_figures(
    engine: Engine, object_store: FolderObjectStore
) -> None:
    now_s = 100.0
    asked, go_on = threading.Event(), threading.Event()

    class HangingStore:
        def exists(self, key: str) -> bool:
            asked.set()
            return go_on.wait(DEADLINE_S)

    stream = TableStream(engine)
    collection = Collection(engine, stream, HangingStore(), LIMITS, monotonic_s=lambda: now_s)  # type: ignore[arg-type]  # asks nothing else of it
    registry = registry_of(collection)
    collection.read_once("database")
    reading = threading.Thread(target=collection.read_once, args=("object_store",))
    reading.start()
    try:
        assert asked.wait(DEADLINE_S)
        told = Exposed(text_of(registry))
        assert told.value("bulk_switch_dependency_up", dependency="database") == 1
        assert told.value("bulk_switch_dependency_up", dependency="object_store") == 0
        assert "bulk_switch_bulks_open" in told.names()
        # Nobody has read for longer than what was read may be told.
        now_s += LIMITS.stale_ms / 1000 + 1
        assert Exposed(text_of(registry)).value("bulk_switch_dependency_up", dependency="database") == 0
        assert "bulk_switch_bulks_open" not in Exposed(text_of(registry)).names()
    finally:
        go_on.set()
        reading.join(DEADLINE_S)


def test_the_exporter_reads_by_itself_and_ends_when_it_is_told(engine: Engine, object_store: FolderObjectStore) -> None:
    collection = Collection(engine, TableStream(engine), object_store, CollectionLimits(interval_ms=10))
    with collection.running():
        registry = registry_of(collection)
        wait_until(lambda: Exposed(text_of(registry)).value("bulk_switch_dependency_up", dependency="database") == 1)
    names = {thread.name for thread in threading.enumerate()}
    assert not {f"collect-{dependency}" for dependency in DEPENDENCIES} & names


def test_a_small_port_tells_health_and_metrics_and_nothing_else() -> None:
    trouble: dict[str, str] = {}
    [port] = free_ports(1)
    with (
        health_port("127.0.0.1", port, lambda: trouble, [process_registry()]),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        assert client.get("/health").json()["status"] == "OK"
        trouble["position"] = "owns no partition"
        unwell = client.get("/health")
        assert (unwell.status_code, unwell.json()["trouble"]) == (HTTPStatus.SERVICE_UNAVAILABLE, trouble)
        assert Exposed(client.get("/metrics").text).value("process_open_fds") > 0
        assert client.get("/elsewhere").status_code == HTTPStatus.NOT_FOUND


def test_refusals_are_counted_once_with_the_commit_and_only_under_codes_that_we_know() -> None:
    handler = f"test-{uuid.uuid4()}"
    metrics = LoopMetrics(handler)
    metrics.begin()
    note_refused_bulk("3100")
    # That attempt was rolled back.
    metrics.begin()
    note_refused_bulk("3100")
    item = BulkProcessing("bulk-processing", "commit", "error", b"", 1, b"", "5999", "the payee's own code")
    metrics.committed(3, 0.01, 0, [Output(TOPIC_BULK_PROCESSING, b"", item)])
    metrics.begin()
    metrics.committed(1, 0.01, 1, [])
    told = Exposed(text_of(REGISTRY))
    assert told.value("bulk_switch_refusals_total", handler=handler, kind="bulk", code="3100") == 1
    assert told.value("bulk_switch_refusals_total", handler=handler, kind="item", code="other") == 1
    assert told.value("bulk_switch_batch_messages_sum", handler=handler) == 4
    assert told.value("bulk_switch_dead_letters_written_total", handler=handler) == 1
