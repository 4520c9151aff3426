"""Bytes under their own hash: results and callback bodies. The same bytes are kept once, and never change.

What is named by a message that is under way is safe from retention because it is fresh: whoever names an object in a message
makes sure that it was put within `FRESH_MS` (operations/retention.py has the whole argument).
"""

import hashlib
import time

from object_store.interface import ObjectMissing, ObjectStore

# An object that was put longer ago than this is put once more before a message names it.
FRESH_MS = 24 * 60 * 60 * 1000


def content_key(body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    return f"content/{digest[:2]}/{digest}"


def put_content(store: ObjectStore, body: bytes) -> str:
    """Keep the bytes and return their key; raises ObjectStoreUnavailable."""
    key = content_key(body)
    if not _is_fresh(store, key):
        store.put(key, body)
    return key


def renew_content(store: ObjectStore, key: str) -> bool:
    """Make sure that a message may name the object; False when it is gone. Raises ObjectStoreUnavailable."""
    if not _is_fresh(store, key):
        try:
            store.put(key, store.get(key))
        except ObjectMissing:
            return False
    return True


def _is_fresh(store: ObjectStore, key: str) -> bool:
    put_ms = store.put_ms(key)
    return put_ms is not None and put_ms > time.time_ns() // 1_000_000 - FRESH_MS
