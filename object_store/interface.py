"""What an object store is: put and get by key, with puts that are durable when they return.

Keys are slash-separated text of [A-Za-z0-9._-]. Two kinds are used, and no others:

    requests/<bulkTransferId>/<requestId>   one HTTP request: envelope line and raw body (`envelope`)
    content/<2 hex>/<64 hex>                bytes under their own SHA-256 (`content`)

A request id is minted per HTTP request, so no resend, forgery or stranger's request touches another's object.
"""

from typing import Protocol


class ObjectStoreError(Exception):
    """Trouble with the object store."""


class ObjectStoreUnavailable(ObjectStoreError):
    """The store does not answer now, or is full; trying again may help."""


class ObjectMissing(ObjectStoreError):
    """No object under this key."""


class ObjectStore(Protocol):
    """Safe for several threads."""

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
