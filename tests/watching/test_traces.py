"""A request's trace is one trace from the edge through every handler to its callbacks; off, nothing of it is there."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text

from bulk_api_adapter.fspiop.app import make_fspiop_app
from handlers import journal
from handlers.tracing import continued
from object_store.folder import FolderObjectStore
from operations.simulated_fsp import PayeeBehaviour
from operations.spans import Spans
from stream.interface import NewRecord
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream
from tests.fspiop.requests import headers, post_body
from tests.watching.whole_switch import DEADLINE_S, WholeSwitch, whole_switch

ROOT = Path(__file__).parents[2]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def orphans(spans: Sequence[ReadableSpan]) -> list[str]:
    """Spans whose parent is neither a span of ours nor the payer's own."""
    known = {f"{span.context.span_id:016x}" for span in spans if span.context is not None} | {"00f067aa0ba902b7"}
    return [span.name for span in spans if span.parent is None or f"{span.parent.span_id:016x}" not in known]


def run_bulk(switch: WholeSwitch) -> dict[str, str]:
    """One bulk of a payer that traces, from its POST to both final callbacks; the trace each callback carries."""
    bulk = switch.payer.build("payeefsp", items=3)
    assert switch.payer.post(bulk, traceparent=TRACEPARENT, tracestate="vendor=1").status == 202
    [told] = switch.payer.wait_for(bulk.bulk_transfer_id, timeout_s=DEADLINE_S)
    forwarded, final = switch.payee.wait_for(bulk.bulk_transfer_id, 2, timeout_s=DEADLINE_S)
    assert told.json()["bulkTransferState"] == final.json()["bulkTransferState"] == "COMPLETED"
    callbacks = {"forward": forwarded, "payer": told, "payee": final}
    return {name: receipt.headers.get("traceparent", "") for name, receipt in callbacks.items()}


def test_a_bulk_is_one_connected_trace_from_its_post_to_both_callbacks(
    database_url: str, object_store: FolderObjectStore
) -> None:
    exporter = InMemorySpanExporter()
    tracing = Spans("test", exporter, sample_ratio=1.0)
    with whole_switch(database_url, object_store, tracing=tracing) as switch:
        carried = run_bulk(switch)
        with switch.engine.connect() as tx:
            stored = set(tx.execute(text("SELECT headers ->> 'traceparent' FROM delivery")).scalars())
    tracing.close()
    spans = exporter.get_finished_spans()
    assert {traceparent.split("-")[1] for traceparent in carried.values()} == {TRACE_ID}
    assert {trace_id(span) for span in spans} == {TRACE_ID}
    assert orphans(spans) == []
    names = Counter(span.name for span in spans)
    for name in ("POST /bulkTransfers", "PUT /bulkTransfers/{ID}", "callback POST bulkTransfers"):
        assert names[name] == 1
    assert names["callback PUT bulkTransfers"] == 2
    handlers = ("bulk-prepare", "prepare", "position", "bulk-processing", "notification", "bulk-fulfil", "fulfil")
    assert all(names[f"{handler} process"] >= 1 for handler in handlers)
    # What was sent is what was written down, so that another attempt would send the same bytes.
    assert stored == set(carried.values())


def test_the_last_word_is_in_the_trace_of_the_post_when_the_payee_answers_in_none(
    database_url: str, object_store: FolderObjectStore
) -> None:
    exporter = InMemorySpanExporter()
    tracing = Spans("test", exporter, sample_ratio=1.0)
    with whole_switch(database_url, object_store, tracing=tracing) as switch:
        switch.payee.behaviour = PayeeBehaviour(continues_trace=False)
        carried = run_bulk(switch)
    tracing.close()
    assert {traceparent.split("-")[1] for traceparent in carried.values()} == {TRACE_ID}
    by_name = {span.name: trace_id(span) for span in exporter.get_finished_spans()}
    assert by_name["PUT /bulkTransfers/{ID}"] != by_name["POST /bulkTransfers"] == TRACE_ID


def test_a_trace_that_is_not_sampled_is_carried_on_and_costs_no_span(
    database_url: str, object_store: FolderObjectStore
) -> None:
    exporter = InMemorySpanExporter()
    tracing = Spans("test", exporter, sample_ratio=0.0)
    with whole_switch(database_url, object_store, tracing=tracing) as switch:
        carried = run_bulk(switch)
        transfer = switch.payer.build_transfer("payeefsp")
        assert switch.payer.post_transfer(transfer).status == 202
        [forwarded] = switch.payee.wait_for(transfer.transfer_id, timeout_s=DEADLINE_S)
        switch.payer.wait_for(transfer.transfer_id, timeout_s=DEADLINE_S)
    tracing.close()
    assert exporter.get_finished_spans() == ()
    # The sender asked for recording, and does not decide it.
    assert all(traceparent.split("-")[1::2] == [TRACE_ID, "00"] for traceparent in carried.values())
    # The payer began no trace, so the edge did, and passes it on with the payer's own request.
    assert int(forwarded.headers["traceparent"].split("-")[3], 16) & 1 == 0


def test_switched_off_no_callback_and_no_record_of_a_handler_carries_a_trace(
    database_url: str, object_store: FolderObjectStore
) -> None:
    with whole_switch(database_url, object_store) as switch:
        assert set(run_bulk(switch).values()) == {""}
        with switch.engine.connect() as tx:
            query = text("SELECT topic FROM stream_record WHERE headers IS NOT NULL")
            # The payer's own context, as it came.
            assert set(tx.execute(query).scalars()) == {"topic-bulk-prepare"}


@pytest.mark.parametrize(
    ("modules", "library"),
    [
        ("operations.handler_process, operations.deliverer_process", "opentelemetry"),
        # FastAPI itself imports the interface, which does nothing without the SDK.
        ("operations.edge_process", "opentelemetry.sdk"),
    ],
)
def test_switched_off_nothing_imports_opentelemetry(modules: str, library: str) -> None:
    code = f"import sys, {modules}; print([name for name in sys.modules if name.startswith({library!r})])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def post_through_the_edge(tracing: Spans, *given: tuple[str, str]) -> tuple[httpx.Response, MemoryStream]:
    stream = MemoryStream()
    app = make_fspiop_app(stream, MemoryObjectStore(), tracing=tracing)

    async def send() -> httpx.Response:
        request = httpx.Request(
            "POST", "http://switch/bulkTransfers", headers=[*headers().items(), *given], json=post_body()
        )
        async with app.router.lifespan_context(app):
            response = await httpx.ASGITransport(app).handle_async_request(request)
            await response.aread()
        return response

    return asyncio.run(send()), stream


@pytest.mark.parametrize("given", ["", "00-nonsense", f"00-{TRACE_ID}-{'0' * 16}-01"])
def test_a_request_without_a_valid_context_begins_a_trace(given: str) -> None:
    tracing = Spans("test", InMemorySpanExporter(), sample_ratio=1.0)
    response, stream = post_through_the_edge(tracing, *([("traceparent", given)] if given else []))
    tracing.close()
    assert response.status_code == 202
    [record] = stream.records
    begun = dict(record.headers)["traceparent"].decode()
    # Sampled; other flags of the trace may be set besides.
    assert int(begun.split("-")[3], 16) & 1
    assert TRACE_ID not in begun


def test_two_contexts_in_one_request_are_refused_as_without_tracing() -> None:
    tracing = Spans("test", InMemorySpanExporter(), sample_ratio=1.0)
    response, stream = post_through_the_edge(tracing, ("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT))
    tracing.close()
    assert response.json()["errorInformation"]["errorCode"] == "3101"
    assert stream.records == []


def test_a_journal_holds_headers_and_one_without_them_is_as_it_always_was() -> None:
    plain = NewRecord("topic-transfer-prepare", b"key", b"value")
    traced = NewRecord("topic-bulk-processing", b"", bytes(70_000), (("traceparent", TRACEPARENT.encode()), ("a", b"")))
    packed = journal.pack([plain, traced, plain])
    assert packed is not None
    assert journal.unpack(packed) == [plain, traced, plain]
    # The bytes of the release before this one: lengths of topic, key and value, and then these.
    assert journal.pack([plain]) == b"\x00\x16\x00\x03\x00\x00\x00\x05topic-transfer-preparekeyvalue"


def test_of_two_contexts_the_later_one_of_the_same_trace_goes_on() -> None:
    later = {"traceparent": f"00-{TRACE_ID}-1111111111111111-01"}
    other = {"traceparent": f"00-{'a' * 32}-2222222222222222-01"}
    first = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    assert continued(first, later) == later
    assert continued(first, other) == continued(first, {}) == first
    assert continued(None, other) == other
    assert continued(None, {}) == {}
