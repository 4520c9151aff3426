"""What every object store promises, on a folder and on a real S3 server."""

import hashlib
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from object_store.content import content_key, put_content, renew_content
from object_store.envelope import request_key
from object_store.interface import ObjectMissing, ObjectStore

_WAIT_S = 60
# Servers tell ages in whole seconds, cut off.
_STEP_MS = 1_000


def request_keys(count: int) -> list[str]:
    """Keys as the switch makes them: several requests of several bulks."""
    bulks = [uuid.uuid4().bytes for _ in range(max(1, count // 3))]
    return [request_key(bulks[number % len(bulks)], uuid.uuid4().bytes) for number in range(count)]


def now_of(store: ObjectStore) -> int:
    """The store's own clock."""
    store.put("requests/clock/now", b"")
    return store.put_ms("requests/clock/now") or 0


def wait_until_older(store: ObjectStore, put_ms: int) -> int:
    """A time before which what was put at `put_ms` was put, and after which whatever is put from now on is."""
    deadline = time.monotonic() + _WAIT_S
    before_ms = put_ms + _STEP_MS
    while now_of(store) < before_ms:
        assert time.monotonic() < deadline, "the store's clock stands still"
        threading.Event().wait(0.02)
    return before_ms


def test_put_get_exists_keys_delete(store: ObjectStore) -> None:
    store.check()
    store.put("requests/a/1", b"one")
    store.put("requests/a/2", b"two")
    store.put("requests/b/1", b"three")
    store.put("requests/a/1", b"one more")
    assert store.get("requests/a/1") == b"one more"
    assert store.keys("requests/a/") == ["requests/a/1", "requests/a/2"]
    assert store.keys("requests/none/") == []
    assert store.exists("requests/b/1")
    store.delete("requests/b/1")
    store.delete("requests/b/1")
    assert not store.exists("requests/b/1")
    assert store.put_ms("requests/b/1") is None
    with pytest.raises(ObjectMissing):
        store.get("requests/b/1")
    # Of what was put twice nothing comes back when it is deleted.
    store.delete("requests/a/1")
    assert store.keys("requests/a/") == ["requests/a/2"]
    with pytest.raises(ObjectMissing):
        store.get("requests/a/1")


def test_provisioning_again_changes_nothing(store: ObjectStore) -> None:
    store.put("requests/a/1", b"one")
    store.provision()
    store.check()
    assert store.get("requests/a/1") == b"one"


@pytest.mark.parametrize("size", [0, 1, 541_000, 6 * 1024 * 1024])
def test_bytes_come_back_as_they_were_kept(store: ObjectStore, size: int) -> None:
    body = os.urandom(size)
    store.put("requests/a/1", body)
    assert store.get("requests/a/1") == body


@pytest.mark.parametrize("key", ["../escape", "a//b", "/absolute", "a/../b", "."])
def test_a_key_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    for call in (lambda: store.put(key, b""), lambda: store.get(key)):
        with pytest.raises(AssertionError):
            call()


@pytest.mark.parametrize("page", [1, 3, 100])
def test_pages_give_every_object_once_in_key_order(store: ObjectStore, page: int) -> None:
    keys = sorted(request_keys(7))
    for key in [*reversed(keys), "content/ab/other"]:
        store.put(key, b"")
    found: list[str] = []
    while True:
        listed = store.page("requests/", found[-1] if found else "", page)
        assert len(listed) <= page
        found += [one.key for one in listed]
        if len(listed) < page:
            break
    assert found == keys == store.keys("requests/")
    assert store.page("requests/nothing/", "", 10) == []
    [one] = store.page("content/", "", 10)
    assert one.put_ms == store.put_ms("content/ab/other")


def test_many_threads_share_a_store(store: ObjectStore) -> None:
    keys = request_keys(60)

    def there_and_back(key: str) -> bool:
        body = hashlib.sha256(key.encode()).digest() * 300
        store.put(key, body)
        return store.get(key) == body and store.exists(key)

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(there_and_back, keys))
    assert store.keys("requests/") == sorted(keys)


def test_only_what_is_old_enough_is_deleted(store: ObjectStore) -> None:
    store.put("content/aa/old", b"x")
    store.put("content/aa/renewed", b"x")
    put_ms = store.put_ms("content/aa/renewed") or 0
    assert not store.delete_older("content/aa/old", (store.put_ms("content/aa/old") or 0) - _STEP_MS)
    before_ms = wait_until_older(store, put_ms)
    store.put("content/aa/renewed", b"x")
    assert store.delete_older("content/aa/old", before_ms)
    assert not store.delete_older("content/aa/old", before_ms)
    assert not store.delete_older("content/aa/renewed", before_ms)
    assert store.keys("content/") == ["content/aa/renewed"]
    # Everything of it goes, also what the second put has replaced.
    assert store.delete_older("content/aa/renewed", wait_until_older(store, store.put_ms("content/aa/renewed") or 0))
    assert store.keys("content/") == []


def test_a_put_during_a_deletion_is_never_undone(store: ObjectStore) -> None:
    """The one race that matters: a handler renews an object in the instant in which retention deletes it."""
    keys = [content_key(bytes([number])) for number in range(60)]
    for key in keys:
        store.put(key, b"x")
    before_ms = wait_until_older(store, store.put_ms(keys[-1]) or 0)
    deleted = 0
    for number, key in enumerate(keys):
        started = threading.Barrier(2)

        def renew(key: str = key, started: threading.Barrier = started) -> None:
            started.wait(_WAIT_S)
            store.put(key, b"x")

        writer = threading.Thread(target=renew)
        writer.start()
        started.wait(_WAIT_S)
        # Not to wait for anything, but to meet the put at another of its instants each time.
        threading.Event().wait(number % 6 / 2_000)
        deleted += store.delete_older(key, before_ms)
        writer.join()
        assert store.get(key) == b"x"
        assert store.put_ms(key) is not None
    assert store.keys("content/") == sorted(keys)


def test_content_is_kept_once_under_its_hash_and_renewed(store: ObjectStore) -> None:
    key = put_content(store, b"body")
    assert key == content_key(b"body") == put_content(store, b"body")
    assert store.get(key) == b"body"
    assert renew_content(store, key)
    assert not renew_content(store, content_key(b"gone"))
