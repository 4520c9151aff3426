"""What an object store is: put and get by key, with puts that are durable when they return.

Keys are slash-separated text of [A-Za-z0-9._-]. Two kinds are used, and no others:

    requests/<bulkTransferId>/<requestId>   one HTTP request: envelope line and raw body (`envelope`)
    content/<2 hex>/<64 hex>                bytes under their own SHA-256 (`content`)

A request id is minted per HTTP request, so no resend, forgery or stranger's request touches another's object.

How old an object is, is counted from its last `put`, by the store's own clock. What is deleted is deleted by age
(`delete_older`), so that whoever puts the same key again in that very moment is never the loser.
"""

from dataclasses import dataclass
from typing import Protocol


class ObjectStoreError(Exception):
    """Trouble with the object store."""


class ObjectStoreUnavailable(ObjectStoreError):
    """The store does not answer now, or is full; trying again may help."""


class ObjectStoreRefused(ObjectStoreUnavailable):
    """The store answers, and refuses: an operator must mend credentials, bucket or permissions before trying helps."""


class ObjectMissing(ObjectStoreError):
    """No object under this key."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it; `put_ms` is when it was last put, in milliseconds since 1970."""

    key: str
    put_ms: int


class ObjectStore(Protocol):
    """Safe for several threads."""

    def provision(self) -> None:
        """Make what the store needs before the first put, once per world; raises ObjectStoreUnavailable."""

    def check(self) -> None:
        """Whether it can be worked with now; raises ObjectStoreRefused, ObjectStoreUnavailable."""

    def put(self, key: str, body: bytes) -> None:
        """Keep `body` under `key`, durably; the same key twice keeps the last. Raises ObjectStoreUnavailable."""

    def get(self, key: str) -> bytes:
        """The body; raises ObjectMissing, ObjectStoreUnavailable."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under the key; raises ObjectStoreUnavailable."""

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix` (which ends with a slash), sorted; raises ObjectStoreUnavailable."""

    def delete(self, key: str) -> None:
        """Forget the object; no error when there is none."""

    def put_ms(self, key: str) -> int | None:
        """When the object was last put, in milliseconds since 1970; None when there is none. ObjectStoreUnavailable."""

    def page(self, prefix: str, after: str, objects_max: int) -> list[StoredObject]:
        """The first objects, in key order, whose keys begin with `prefix` (which ends with a slash) and come after `after`.

        At most `objects_max`; fewer only at the end. Bounded memory for any number of objects. ObjectStoreUnavailable.
        """

    def delete_older(self, key: str, before_ms: int) -> bool:
        """Forget the object unless it was put at `before_ms` or later, even in this moment; whether one was forgotten.

        Raises ObjectStoreUnavailable.
        """

    def delete_unfinished(self, before_ms: int) -> int:
        """Forget what puts that began before this time and never ended have left behind; how many there were."""
