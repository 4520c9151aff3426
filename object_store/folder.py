"""An object store in a folder of one machine.

An object is written to a temporary name in its own folder, fsynced, renamed, and the folder fsynced: a reader sees all
of it or nothing, and what `put` returned for survives a power cut.
"""

import os
import uuid
from pathlib import Path

from object_store.interface import ObjectMissing, ObjectStoreUnavailable

_TEMPORARY_PREFIX = ".part-"


class FolderObjectStore:
    """Implements object_store.interface.ObjectStore on a folder, which is made when it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, body: bytes) -> None:
        path = self._path(key)
        temporary = path.with_name(f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            self._make_parents(path.parent)
            with temporary.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            self._sync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ObjectStoreUnavailable(f"cannot keep {key}: {error}") from error

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot read {key}: {error}") from error

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def keys(self, prefix: str) -> list[str]:
        assert prefix.endswith("/")
        root = self._path(prefix.rstrip("/"))
        return sorted(
            str(path.relative_to(self._folder))
            for path in root.rglob("*")
            if path.is_file() and not path.name.startswith(_TEMPORARY_PREFIX)
        )

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot delete {key}: {error}") from error

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        assert all(part and part not in {".", ".."} for part in parts), f"not an object key: {key!r}"
        return self._folder.joinpath(*parts)

    def _make_parents(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_parents(folder.parent)
        folder.mkdir(exist_ok=True)
        # The new folder's own name must be durable too, else the object under it is not.
        self._sync_folder(folder.parent)

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
