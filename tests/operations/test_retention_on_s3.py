"""Retention on a real S3 server removes the same as in a folder, every version of it, and nothing else."""

from datetime import datetime

import pytest
from sqlalchemy import Engine

from object_store import s3
from object_store.content import put_content
from object_store.interface import ObjectStore
from tests.operations.all_outcomes import make_all_outcomes, make_pipeline
from tests.operations.test_retention import (
    contents_named,
    counted,
    deliver_all,
    everything,
    make_rows_old,
    requests_of,
    retain,
    single_requests,
)

pytestmark = pytest.mark.services

DAY_MS = 24 * 60 * 60 * 1000


def make_objects_old(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """As if everything in the bucket had been put so many days earlier: a server's clock cannot be set."""

    def earlier(last_modified: datetime | None) -> int:
        assert last_modified is not None
        return int(last_modified.timestamp() * 1000) - days * DAY_MS

    monkeypatch.setattr(s3, "_milliseconds", earlier)


def test_what_is_old_goes_with_all_its_versions_and_what_is_open_stays(
    engine: Engine, s3_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline(engine, s3_store)
    outcomes = make_all_outcomes(pipeline)
    deliver_all(engine)
    young = everything(pipeline)
    assert counted(retain(pipeline)) == {"callbacks": 0, "results": 0, "requests": 0, "orphans": 0, "contents": 0}
    assert everything(pipeline) == young
    # Put twice: a second version lies under the first.
    shared = put_content(s3_store, b"named by nobody")
    s3_store.put(shared, b"named by nobody")
    make_rows_old(engine, 100)
    make_objects_old(monkeypatch, 100)
    opened = [outcomes.accepted, outcomes.pending]
    kept = [*(requests_of(pipeline, body) for body in opened), single_requests(pipeline, outcomes.single_open)]
    assert [] not in kept
    planned = retain(pipeline, is_dry_run=True)
    report = retain(pipeline)
    assert counted(report) == counted(planned)
    assert all(requests_of(pipeline, body) == [] for body in outcomes.ended)
    assert all(single_requests(pipeline, body) == [] for body in outcomes.singles_ended)
    assert [*(requests_of(pipeline, body) for body in opened), single_requests(pipeline, outcomes.single_open)] == kept
    assert contents_named(pipeline) == set(s3_store.keys("content/"))
    assert not s3_store.exists(shared)
    assert counted(retain(pipeline)) == {"callbacks": 0, "results": 0, "requests": 0, "orphans": 0, "contents": 0}
