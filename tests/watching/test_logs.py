"""Log lines say whose they are, in fields of their own, and never what a payload holds, not even at DEBUG."""

import ast
import io
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from object_store.folder import FolderObjectStore
from operations.logs import EXTRA_FIELDS, QUIET_LIBRARIES, JsonLines, TextLines, configure_logs, without_quotes
from operations.settings import read_settings
from operations.simulated_fsp import PayeeBehaviour
from stream.interface import NewRecord
from tests.watching.whole_switch import DEADLINE_S, whole_switch

ROOT = Path(__file__).parents[2]
PACKAGES = ("bulk_api_adapter", "db", "domain", "handlers", "object_store", "operations", "schemas", "stream")
ALWAYS = {"time", "level", "logger", "process", "message"}
SIGNATURE = "marked-signature-0f2b"


@contextmanager
def captured(formatter: logging.Formatter, level: int) -> Iterator[io.StringIO]:
    """Everything that is logged within the block, as the process would write it."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    levels = {root: level} | {logging.getLogger(name): max(logging.WARNING, level) for name in QUIET_LIBRARIES}
    before = {logger: logger.level for logger in levels}
    root.addHandler(handler)
    for logger in levels:
        logger.setLevel(levels[logger])
    try:
        yield output
    finally:
        for logger in levels:
            logger.setLevel(before[logger])
        root.removeHandler(handler)


def values_of(body: Any, names: frozenset[str]) -> Iterator[str]:
    """The texts that stand under these names anywhere in a body."""
    if isinstance(body, Mapping):
        for name, value in body.items():
            if name in names and isinstance(value, str):
                yield value
            yield from values_of(value, names)
    elif isinstance(body, list):
        for value in body:
            yield from values_of(value, names)


def test_no_log_line_holds_anything_of_a_payload(database_url: str, object_store: FolderObjectStore) -> None:
    secret_names = frozenset({"ilpPacket", "condition", "fulfilment", "amount", "value"})
    with (
        captured(JsonLines("test"), logging.DEBUG) as output,
        whole_switch(database_url, object_store) as switch,
    ):
        # One item is refused, one has a fulfilment that does not fit, one is committed.
        switch.payee.behaviour = PayeeBehaviour(commit_max=2, wrong_fulfilments=1)
        bulk = switch.payer.build("payeefsp", items=3)
        transfer = switch.payer.build_transfer("payeefsp")
        sent = [orjson.loads(bulk.body), orjson.loads(transfer.body)]
        for number, item in enumerate([*sent[0]["individualTransfers"], sent[1]]):
            amount = item["transferAmount"] if "transferAmount" in item else item["amount"]
            amount["amount"] = f"731{number}.4931"
        sent[0]["extensionList"] = {"extension": [{"key": "note", "value": "marked-extension-77aa"}]}
        assert switch.payer.post(_with_body(bulk, sent[0]), fspiop_signature=SIGNATURE).status == 202
        assert switch.payer.post_transfer(_with_body(transfer, sent[1]), fspiop_signature=SIGNATURE).status == 202
        assert (
            switch.payer.post(
                _with_body(bulk, {"bulkTransferId": "marked-body-55cc"}), fspiop_signature=SIGNATURE
            ).status
            == 400
        )
        switch.payer.wait_for(bulk.bulk_transfer_id, timeout_s=DEADLINE_S)
        switch.payer.wait_for(transfer.transfer_id, timeout_s=DEADLINE_S)
        producer = switch.stream.producer()
        producer.produce([NewRecord("topic-bulk-prepare", b"x", b"marked-record-99ee")])
        producer.wait_for_acks(10_000)
        producer.close()
        _wait_for_dead_letter(switch.engine)
        answered = [orjson.loads(answer.body) for answer in switch.payee.answers]
    written = output.getvalue()
    marked = {SIGNATURE, "marked-extension-77aa", "marked-body-55cc", "marked-record-99ee"}
    marked |= set(values_of([*sent, *answered], secret_names))
    assert len(marked) > 15
    assert [mark for mark in marked if mark in written] == []
    lines = [orjson.loads(line) for line in written.splitlines()]
    [dead_letter] = [line for line in lines if "dead letter" in line["message"]]
    assert (dead_letter["handler"], dead_letter["level"]) == ("bulk-prepare", "ERROR")
    for line in lines:
        assert set(line) >= ALWAYS
        assert set(line) <= ALWAYS | {"exception", *EXTRA_FIELDS}


def _with_body(request: Any, body: Any) -> Any:
    return replace(request, body=orjson.dumps(body))


def _wait_for_dead_letter(engine: Engine) -> None:
    deadline = time.monotonic() + DEADLINE_S
    query = text("SELECT sum(end_offset) FROM stream_partition WHERE topic LIKE '%-dead-letter'")
    while True:
        with engine.connect() as tx:
            if tx.execute(query).scalar_one():
                return
        assert time.monotonic() < deadline, "the bad record did not become a dead letter"
        threading.Event().wait(0.02)


def test_a_row_that_the_database_refuses_is_not_quoted(engine: Engine) -> None:
    with captured(JsonLines("test"), logging.INFO) as json_lines, captured(TextLines(), logging.INFO) as text_lines:
        try:
            with engine.begin() as tx:
                tx.execute(
                    text("INSERT INTO currency VALUES (:id, :name, NULL)"), {"id": "XXX", "name": "marked\nname\n  x"}
                )
        except DBAPIError:
            logging.getLogger("handlers.loop").exception("a batch failed", extra={"handler": "position", "offset": 7})
    [line] = [orjson.loads(one) for one in json_lines.getvalue().splitlines()]
    assert (line["handler"], line["offset"], line["process"]) == ("position", 7, "test")
    assert line["time"].endswith("Z")
    for written in (line["exception"], text_lines.getvalue()):
        assert "null value in column" in written
        assert "Traceback" in written
        assert "marked" not in written
        assert "name\n  x" not in written


def test_what_follows_a_quoted_row_in_a_traceback_stays() -> None:
    traceback = (
        "E: bad\nDETAIL:  row (1,\n secret).\n\nThe above exception was\n\nTraceback (most recent\n  File x\nKeyError"
    )
    assert without_quotes(traceback) == (
        "E: bad\n(what it quotes is left out)\nThe above exception was\n\nTraceback (most recent\n  File x\nKeyError"
    )


def test_every_field_that_a_call_gives_is_one_that_is_written() -> None:
    unknown = []
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                    names = [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
                    unknown += [f"{file.name}: {name}" for name in names if name not in EXTRA_FIELDS]
    assert unknown == []


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_process_writes_its_lines_to_standard_output(
    log_format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    for library in QUIET_LIBRARIES:
        # What is made quiet here is looked at by other tests.
        monkeypatch.setattr(logging.getLogger(library), "level", logging.NOTSET)
    settings = read_settings(log_format=log_format)
    configure_logs("deliverer", settings.log_level, settings.log_format)
    logging.getLogger("handlers.deliverer").info("delivery %d", 3, extra={"delivery_id": 3})
    logging.getLogger("httpx").info("a request")
    written = capsys.readouterr().out
    assert written.count("\n") == 1
    if log_format == "json":
        line = orjson.loads(written)
        assert (line["process"], line["message"], line["delivery_id"]) == ("deliverer", "delivery 3", 3)
    else:
        assert written.endswith(" INFO handlers.deliverer: delivery 3\n")
