"""Objects are listed with their ages and deleted by age, and no put is ever undone by a deletion."""

import os
import threading
import time
from pathlib import Path

import pytest

from object_store.content import FRESH_MS, content_key, put_content, renew_content
from object_store.folder import FolderObjectStore
from object_store.interface import ObjectMissing, ObjectStore, StoredObject

DAY_MS = 24 * 60 * 60 * 1000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def make_old(folder: Path, key: str, age_ms: int) -> None:
    seconds = (now_ms() - age_ms) / 1000
    os.utime(folder / key, (seconds, seconds))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the `object_store` fixture."""
    return tmp_path / "objects"


def all_keys(store: ObjectStore, prefix: str, page: int) -> list[str]:
    keys: list[str] = []
    while True:
        found = store.page(prefix, keys[-1] if keys else "", page)
        assert len(found) <= page
        keys += [one.key for one in found]
        if len(found) < page:
            return keys


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_pages_give_every_object_once_in_key_order(object_store: FolderObjectStore, page: int) -> None:
    # "a-b/…" sorts before "a/…" as text, because the hyphen comes before the slash.
    keys = ["r/a-b/1", "r/a/1", "r/a/2", "r/b", "r/b-c", "r/c/x/y", "r/c/x/z"]
    for key in [*reversed(keys), "other/1"]:
        object_store.put(key, b"")
    assert all_keys(object_store, "r/", page) == sorted(keys) == object_store.keys("r/")
    assert object_store.page("nothing/", "", 10) == []
    assert [one.key for one in object_store.page("r/a/", "r/a/1", 10)] == ["r/a/2"]


def test_an_object_is_as_old_as_its_last_put(object_store: FolderObjectStore, folder: Path) -> None:
    assert object_store.put_ms("r/1") is None
    object_store.put("r/1", b"x")
    make_old(folder, "r/1", DAY_MS)
    [old] = object_store.page("r/", "", 10)
    assert old == StoredObject("r/1", object_store.put_ms("r/1") or 0)
    assert now_ms() - old.put_ms >= DAY_MS
    object_store.put("r/1", b"x")
    assert now_ms() - (object_store.put_ms("r/1") or 0) < DAY_MS


def test_only_what_is_old_enough_is_deleted(object_store: FolderObjectStore, folder: Path) -> None:
    object_store.put("r/a/1", b"x")
    object_store.put("r/a/2", b"x")
    make_old(folder, "r/a/1", DAY_MS)
    before = now_ms() - DAY_MS // 2
    assert object_store.delete_older("r/a/1", before)
    assert not object_store.delete_older("r/a/1", before)
    assert not object_store.delete_older("r/a/2", before)
    assert object_store.keys("r/") == ["r/a/2"]
    make_old(folder, "r/a/2", DAY_MS)
    assert object_store.delete_older("r/a/2", before)
    assert not (folder / "r").exists(), "empty folders are not left behind"


def test_a_put_during_a_deletion_is_never_undone(
    object_store: FolderObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one race that matters: a handler renews an object in the instant in which retention deletes it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    rounds = 300
    for number in range(rounds):
        key = f"content/{number}"
        object_store.put(key, b"x")
        make_old(folder, key, DAY_MS)
        started = threading.Barrier(2)

        def renew(key: str = key, started: threading.Barrier = started) -> None:
            started.wait()
            object_store.put(key, b"x")

        writer = threading.Thread(target=renew)
        writer.start()
        started.wait()
        object_store.delete_older(key, now_ms() - DAY_MS // 2)
        writer.join()
        assert object_store.get(key) == b"x"


def test_an_object_written_between_the_look_and_the_renaming_is_put_back(
    object_store: FolderObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.put("r/1", b"old")
    make_old(folder, "r/1", DAY_MS)
    rename = Path.rename

    def written_before(path: Path, target: Path) -> Path:
        object_store.put("r/1", b"new")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", written_before)
    assert not object_store.delete_older("r/1", now_ms() - DAY_MS // 2)
    assert object_store.get("r/1") == b"new"
    assert [path.name for path in (folder / "r").iterdir()] == ["1"]


def test_what_a_deletion_that_died_left_aside_is_put_back(
    object_store: FolderObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.put("r/1", b"x")
    make_old(folder, "r/1", DAY_MS)

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(Killed):
        object_store.delete_older("r/1", now_ms())
    monkeypatch.undo()
    with pytest.raises(ObjectMissing):
        object_store.get("r/1")
    object_store.delete_unfinished(0)
    assert object_store.get("r/1") == b"x"


def test_unfinished_puts_go_when_they_are_old(object_store: FolderObjectStore, folder: Path) -> None:
    object_store.put("r/1", b"x")
    for name, age_ms in (("r/.part-old", DAY_MS), ("r/.part-new", 0)):
        (folder / name).write_bytes(b"half")
        make_old(folder, name, age_ms)
    assert object_store.delete_unfinished(now_ms() - DAY_MS // 2) == 1
    assert sorted(path.name for path in (folder / "r").iterdir()) == [".part-new", "1"]
    assert object_store.keys("r/") == ["r/1"]


def test_content_that_a_message_names_is_always_fresh(object_store: FolderObjectStore, folder: Path) -> None:
    key = put_content(object_store, b"body")
    for name_again in (lambda: put_content(object_store, b"body"), lambda: renew_content(object_store, key)):
        make_old(folder, key, FRESH_MS + 1_000)
        name_again()
        assert now_ms() - (object_store.put_ms(key) or 0) < FRESH_MS
        make_old(folder, key, FRESH_MS // 2)
        name_again()
        assert now_ms() - (object_store.put_ms(key) or 0) >= FRESH_MS // 2, "fresh content is not written again"
    assert not renew_content(object_store, content_key(b"gone"))
