"""`bulk-switch redrive` and `restored`: what they print, what they leave in the audit, and what they refuse."""

import os
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Engine, text

from db.audit import read_audit
from db.slots import InstanceSlot
from object_store.folder import FolderObjectStore
from tests.bulks import PAYER, bulk, item
from tests.operations.all_outcomes import make_pipeline
from tests.operations.test_commands import Run, run
from tests.pipeline import Pipeline

__all__ = ["run"]


@pytest.fixture
def pipeline(engine: Engine, object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return make_pipeline(engine, object_store)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"BULK_SWITCH_DATABASE_URL": database_url, "BULK_SWITCH_OBJECT_STORE_URL": str(tmp_path / "objects")}


def lost_bulk(pipeline: Pipeline) -> str:
    """A bulk that was split, and whose items' messages are lost."""
    body = bulk([item(), item()], now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run("topic-bulk-prepare")
    pipeline.queues["topic-transfer-prepare"].clear()
    return str(body["bulkTransferId"])


def test_redrive_says_what_it_would_do_and_does_it(pipeline: Pipeline, run: Run, world: dict[str, str]) -> None:
    id_ = lost_bulk(pipeline)
    pipeline.post(bulk([item()], now_ms=pipeline.now()), source=PAYER)
    done = run("redrive", "--dry-run", "--from-objects", **world)
    assert done.returncode == 0, done.stderr
    for expected in ("Would be sent again", "topic-transfer-prepare", id_, "POST /bulkTransfers", "answered 503"):
        assert expected in done.stdout
    assert sum(pipeline.stream.end_offsets("topic-transfer-prepare").values()) == 0
    with pipeline.engine.connect() as tx:
        assert [act for act in read_audit(tx) if act.action == "redrive"] == []

    document = orjson.loads(run("redrive", id_, "--from-objects", "--json", **world).stdout)
    assert [(one["topic"], one["messages"], one["first"]) for one in document["kinds"]] == [
        ("topic-transfer-prepare", 2, [id_])
    ]
    # Only what was named: the other's request stays where it is.
    assert document["requests"] == []
    assert sum(pipeline.stream.end_offsets("topic-transfer-prepare").values()) == 1
    with pipeline.engine.connect() as tx:
        [act] = [act for act in read_audit(tx) if act.action == "redrive"]
    assert (act.after or {})["ids"] == [id_]

    document = orjson.loads(run("redrive", "--from-objects", "--json", **world).stdout)
    assert [(one["request"], one["published"]) for one in document["requests"]] == [("POST /bulkTransfers", 1)]
    assert sum(pipeline.stream.end_offsets("topic-bulk-prepare").values()) == 1


def test_a_new_log_is_begun_by_the_command_alone(pipeline: Pipeline, run: Run, world: dict[str, str]) -> None:
    insert = text(
        "INSERT INTO handler_progress (handler, topic, partition, next_offset, log_id)"
        " VALUES ('prepare', 'topic-transfer-prepare', 0, 9, 'another log')"
    )
    with pipeline.engine.begin() as tx:
        tx.execute(insert)
    with InstanceSlot(pipeline.engine, "position"):
        done = run("redrive", "--new-log", **world)
    assert (done.returncode, done.stdout) == (1, "")
    assert "stop every handler first; these run (and their instance numbers): position (0)" in done.stderr
    shown = run("redrive", "--new-log", "--dry-run", **world)
    assert "Would begin anew" in shown.stdout
    document = orjson.loads(run("redrive", "--new-log", "--json", **world).stdout)
    assert [(one["handler"], one["old_offset"], one["next_offset"]) for one in document["new_logs"]] == [
        ("prepare", 9, 0)
    ]
    assert "Every offset belongs to the log that is there." in run("redrive", "--new-log", **world).stdout


def test_restored_advances_the_numbers_and_lists(pipeline: Pipeline, run: Run, world: dict[str, str]) -> None:
    pipeline.post(bulk([item()], now_ms=pipeline.now()), source=PAYER)
    shown = run("restored", "--since", "2026-01-01T00:00:00", "--dry-run", **world)
    assert shown.returncode == 0, shown.stderr
    for expected in (
        "would be above 1,000,000",
        "Kept requests that the database does not know",
        "POST /bulkTransfers",
    ):
        assert expected in shown.stdout
    document = orjson.loads(run("restored", "--since", "2026-01-01T00:00:00", "--json", **world).stdout)
    assert (document["last_number"], document["highest_number"], document["advanced_to"]) == (0, 0, 1_000_000)
    pipeline.run()
    with pipeline.engine.connect() as tx:
        assert tx.execute(text("SELECT bulk_key FROM bulk_transfer")).scalar_one() == 1_000_001


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("redrive", "nonsense"), "nonsense is no bulkTransferId"),
        (("redrive", "00000000-0000-0000-0000-000000000007"), "no bulk or single transfer has the id"),
        (("redrive", "--since", "2026-01-01"), "--since says how far back --from-objects looks"),
    ],
)
def test_mistakes_are_one_clear_line(
    pipeline: Pipeline, run: Run, world: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    done = run(*arguments, **world)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
