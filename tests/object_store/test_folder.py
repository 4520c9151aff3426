"""The folder store keeps what it returned for, whole or not at all, and says which trouble it is in."""

import os
from pathlib import Path

import pytest

from object_store.envelope import CorruptRequest, KeptRequest, pack_request, request_key, request_prefix, unpack_request
from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStoreUnavailable


@pytest.mark.parametrize("key", ["../escape", "a//b", "/absolute", "a/../b", "."])
def test_a_key_cannot_leave_the_folder(object_store: FolderObjectStore, key: str) -> None:
    with pytest.raises(AssertionError):
        object_store.put(key, b"")


def test_a_put_that_dies_half_way_leaves_the_old_object(
    object_store: FolderObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:  # D20
    object_store.put("content/x", b"old")

    def die(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(ObjectStoreUnavailable, match="No space left"):
        object_store.put("content/x", b"new")
    monkeypatch.undo()
    assert object_store.get("content/x") == b"old"
    assert object_store.keys("content/") == ["content/x"]


def test_every_put_is_synced_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # BULK-14
    """The file, its folder, and the name of a folder that is new: else a power cut could lose what was answered 202."""
    store = FolderObjectStore(tmp_path / "objects")
    synced: list[str] = []
    fsync = os.fsync

    def remember(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    store.put("requests/bulk/one", b"1")
    assert [name for name in synced if not name.startswith(".part-")] == ["objects", "requests", "bulk"]
    assert any(name.startswith(".part-") for name in synced)


REQUEST = KeptRequest("payerfsp", None, 1_700_000_000_000, {"content-type": "a;b"}, b'{"x":\n1}')


def test_a_request_is_read_as_it_was_kept() -> None:
    assert unpack_request(pack_request(REQUEST)) == REQUEST
    key = request_key(b"\x01" * 16, b"\x02" * 16)
    assert key.startswith(request_prefix(b"\x01" * 16))


@pytest.mark.parametrize("packed", [b"", b"no line", b"{}\nbody", b"not json\nbody", b"[]\n", b"null\n"])
def test_anything_else_is_corrupt(packed: bytes) -> None:  # BULK-128
    with pytest.raises(CorruptRequest):
        unpack_request(packed)
