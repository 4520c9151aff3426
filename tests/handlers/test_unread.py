"""A GET that overtakes its POST finds it among what is kept, and never looks at more than a few of it."""

import os
from pathlib import Path

import pytest

from handlers.handler import SlowDown
from handlers.unread import has_unread_post
from object_store.envelope import KeptRequest, pack_request, request_key
from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStoreUnavailable
from tests.fspiop.fakes import MemoryStream

TOPIC = "topic-bulk-prepare"
BULK = os.urandom(16)
HOUR_S = 3_600


class CountingStore(FolderObjectStore):
    """Counts what is read."""

    reads = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


def keep(store: CountingStore, source: str, body: bytes, received_at_ms: int, age_s: int = 0) -> str:
    key = request_key(BULK, os.urandom(16))
    store.put(key, pack_request(KeptRequest(source, None, received_at_ms, {}, body)))
    path = store.folder / key
    os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    return key


def is_unread(store: CountingStore, source: str = "payerfsp", read_ms: int = 1_000) -> bool:
    stream = MemoryStream()
    return has_unread_post(store, stream, TOPIC, BULK, source, {0: read_ms}, lambda body: body == b"POST")


def test_only_an_unread_post_of_the_sender_counts(store: CountingStore) -> None:
    keep(store, "payerfsp", b"PUT", 2_000)
    keep(store, "stranger", b"POST", 2_000)
    keep(store, "payerfsp", b"POST", 1_000)
    assert not is_unread(store)
    assert is_unread(store, "stranger")
    keep(store, "payerfsp", b"POST", 1_001)
    assert is_unread(store)


def test_what_cannot_be_read_hides_nothing(store: CountingStore) -> None:
    keep(store, "payerfsp", b"POST", 2_000, age_s=HOUR_S)
    store.put(request_key(BULK, os.urandom(16)), b"no envelope")
    assert is_unread(store)


def test_thousands_of_requests_cost_a_get_no_more_than_a_few_reads(store: CountingStore) -> None:
    """A stranger's PUTs about an id that nobody knows must not keep everybody else's GET waiting."""
    for _ in range(300):
        keep(store, "stranger", b"PUT", 2_000, age_s=HOUR_S)
    keep(store, "payerfsp", b"POST", 2_000)
    assert is_unread(store)
    assert store.reads == 1
    assert not is_unread(store, "nobody")
    assert store.reads == 21


def test_a_store_that_is_away_is_waited_for(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> bytes:
        raise ObjectStoreUnavailable("away")

    keep(store, "payerfsp", b"POST", 2_000)
    monkeypatch.setattr(store, "get", away)
    with pytest.raises(SlowDown):
        is_unread(store)
