"""The proof reads every object that the rows name, and finds what is missing, cut off or another's."""

from collections.abc import Callable

import orjson
import pytest
from sqlalchemy import Engine, text

from bench.object_proof import faults_in_objects
from object_store.content import put_content
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.folder import FolderObjectStore
from tests.bench.test_proof import ITEMS, written

__all__ = ["written"]

_REQUESTS = """
    SELECT b.bulk_transfer_id, b.request_id, 'individualTransfers' FROM bulk_transfer b
    UNION ALL SELECT b.bulk_transfer_id, f.request_id, 'individualTransferResults'
    FROM bulk_transfer b JOIN bulk_transfer_fulfilment f USING (bulk_key)
"""


@pytest.fixture
def kept(written: Engine, object_store: FolderObjectStore) -> list[str]:
    """The keys of everything that two bulks have kept: four requests and one content."""
    keys = []
    with written.begin() as tx:
        for bulk_transfer_id, request_id, listed in tx.execute(text(_REQUESTS)):
            keys.append(request_key(bulk_transfer_id.bytes, request_id.bytes))
            body = orjson.dumps({listed: [{}] * ITEMS})
            object_store.put(keys[-1], pack_request(KeptRequest("payer", "payee", 0, {}, body)))
        content = put_content(object_store, b"what both were told")
        tx.execute(
            text("UPDATE bulk_transfer_result SET list_content = :key, callback_content = :key"), {"key": content}
        )
    return [*keys, content]


def test_a_store_that_has_everything_has_no_faults(
    written: Engine, object_store: FolderObjectStore, kept: list[str]
) -> None:
    assert len(kept) == 5
    assert faults_in_objects(written, object_store, 2) == []
    assert faults_in_objects(written, object_store, 3) == ["the rows name 4 requests, not 6"]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "harm",
    [
        lambda store, key: store.delete(key),
        lambda store, key: store.put(key, store.get(key)[:-1]),
        lambda store, key: store.put(key, b'{"source":"x","destination":null,"received_at_ms":0,"headers":{}}\n{}'),
    ],
    ids=["missing", "cut off", "another's"],
)
def test_an_object_that_is_missing_or_wrong_is_a_fault(
    written: Engine,
    object_store: FolderObjectStore,
    kept: list[str],
    number: int,
    harm: Callable[[FolderObjectStore, str], None],
) -> None:
    harm(object_store, kept[number])
    [fault] = faults_in_objects(written, object_store, 2)
    assert kept[number] in fault
