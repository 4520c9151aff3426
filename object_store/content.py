"""Bytes under their own hash: results and callback bodies. The same bytes are kept once, and never change."""

import hashlib

from object_store.interface import ObjectStore


def content_key(body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    return f"content/{digest[:2]}/{digest}"


def put_content(store: ObjectStore, body: bytes) -> str:
    """Keep the bytes and return their key; raises ObjectStoreUnavailable."""
    key = content_key(body)
    if not store.exists(key):
        store.put(key, body)
    return key
