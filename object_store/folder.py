"""An object store in a folder of one machine.

An object is written to a temporary name in its own folder, fsynced, renamed, and the folder fsynced: a reader sees all
of it or nothing, and what `put` returned for survives a power cut.

An object is deleted by age like this: it is renamed to a temporary name, looked at once more, and put back if it was written
in between. A `get` in that instant may miss it, and a deliverer tries again; nobody's `put` is ever undone. What a process
that dies in between leaves aside is put back by the next `delete_unfinished`. A folder that became empty is removed, and a
`put` that needed it in that very instant makes it again.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from object_store.interface import ObjectMissing, ObjectStoreRefused, ObjectStoreUnavailable, StoredObject

_TEMPORARY_PREFIX = ".part-"
# What is being deleted: `.aside-`, 32 digits, and the name that it had.
_ASIDE_PREFIX = ".aside-"
_NOT_OBJECTS = (_TEMPORARY_PREFIX, _ASIDE_PREFIX)
_ASIDE_LENGTH = len(_ASIDE_PREFIX) + 32


class FolderObjectStore:
    """Implements object_store.interface.ObjectStore on a folder, which is made when it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def provision(self) -> None:
        """Nothing to do: whoever opens the store makes its folder."""

    def check(self) -> None:
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            raise ObjectStoreRefused(f"{self._folder} is no folder in which this user may read and write")

    def put(self, key: str, body: bytes) -> None:
        try:
            try:
                self._put(self._path(key), body)
            except FileNotFoundError:
                # Its folder was empty and has just been removed.
                self._put(self._path(key), body)
        except OSError as error:
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
            if path.is_file() and not path.name.startswith(_NOT_OBJECTS)
        )

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot delete {key}: {error}") from error

    def put_ms(self, key: str) -> int | None:
        try:
            return _modified_ms(self._path(key).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot look at {key}: {error}") from error

    def page(self, prefix: str, after: str, objects_max: int) -> list[StoredObject]:
        assert prefix.endswith("/")
        try:
            return list(islice(self._walk(self._path(prefix.rstrip("/")), prefix, after), objects_max))
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot list {prefix}: {error}") from error

    def delete_older(self, key: str, before_ms: int) -> bool:
        path = self._path(key)
        aside = path.with_name(f"{_ASIDE_PREFIX}{uuid.uuid4().hex}{path.name}")
        try:
            if _modified_ms(path.stat()) >= before_ms:
                return False
            path.rename(aside)
            if _modified_ms(aside.stat()) >= before_ms:
                # Written between the look and the renaming.
                _put_back(aside, path)
                return False
            aside.unlink()
            self._remove_empty(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot delete {key}: {error}") from error
        return True

    def delete_unfinished(self, before_ms: int) -> int:
        deleted = 0
        try:
            for aside in self._folder.rglob(f"{_ASIDE_PREFIX}*"):
                with contextlib.suppress(FileNotFoundError):
                    _put_back(aside, aside.with_name(aside.name[_ASIDE_LENGTH:]))
            for path in self._folder.rglob(f"{_TEMPORARY_PREFIX}*"):
                with contextlib.suppress(FileNotFoundError):
                    if _modified_ms(path.stat()) < before_ms:
                        path.unlink()
                        deleted += 1
        except OSError as error:
            raise ObjectStoreUnavailable(f"cannot clean up: {error}") from error
        return deleted

    def _walk(self, folder: Path, prefix: str, after: str) -> Iterator[StoredObject]:
        """The objects below a folder in key order: a folder's name counts with the slash that follows it in keys."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    (
                        f"{prefix}{entry.name}/" if entry.is_dir(follow_symlinks=False) else f"{prefix}{entry.name}",
                        entry,
                    )
                    for entry in entries
                    if not entry.name.startswith(_NOT_OBJECTS)
                )
        except FileNotFoundError:
            return
        for key, entry in found:
            if key.endswith("/"):
                # Everything below it comes before `after`, unless `after` itself is below it.
                if key > after or after.startswith(key):
                    yield from self._walk(Path(entry.path), key, after)
            elif key > after:
                with contextlib.suppress(FileNotFoundError):
                    yield StoredObject(key, _modified_ms(entry.stat()))

    def _put(self, path: Path, body: bytes) -> None:
        temporary = _temporary(path)
        try:
            self._make_parents(path.parent)
            with temporary.open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            self._sync_folder(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._folder:
            try:
                folder.rmdir()
            except OSError:
                # Not empty, or somebody was quicker.
                return
            folder = folder.parent

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


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}")


def _put_back(aside: Path, path: Path) -> None:
    """Give a file its name again, unless a still newer one has it."""
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(aside)
    aside.unlink()


def _modified_ms(status: os.stat_result) -> int:
    return status.st_mtime_ns // 1_000_000
