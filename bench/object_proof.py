"""What must be true of the object store after a run: everything that the rows name is there, and is what it is named.

Per bulk the request and the fulfilment, whose envelopes open and whose bodies name the bulk's items, and what both sides
were told, under the hash of its bytes. Every object is read back, whichever store it is.
"""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import orjson
from sqlalchemy import Engine, text

from object_store.content import content_key
from object_store.envelope import CorruptRequest, request_key, unpack_request
from object_store.interface import ObjectStore, ObjectStoreError

_READERS = 4
_FAULTS_SHOWN = 5
_REQUESTS = """
    SELECT bulk_transfer_id, request_id, item_count FROM bulk_transfer
    UNION ALL
    SELECT b.bulk_transfer_id, f.request_id, b.item_count
    FROM bulk_transfer_fulfilment f JOIN bulk_transfer b USING (bulk_key)
"""
_CONTENTS = """
    SELECT list_content FROM bulk_transfer_result WHERE list_content IS NOT NULL
    UNION SELECT callback_content FROM bulk_transfer_result WHERE callback_content IS NOT NULL
"""


def faults_in_objects(engine: Engine, store: ObjectStore, bulks: int) -> list[str]:
    """What is missing, or is not what it should be; at most a few lines."""
    with engine.connect() as tx:
        requests = [(row[0], row[1], row[2]) for row in tx.execute(text(_REQUESTS))]
        contents = [str(row[0]) for row in tx.execute(text(_CONTENTS))]
    with ThreadPoolExecutor(_READERS) as readers:
        found = [
            *readers.map(lambda one: _fault_in_request(store, *one), requests),
            *readers.map(lambda key: _fault_in_content(store, key), contents),
        ]
    faults = [fault for fault in found if fault]
    if len(requests) != 2 * bulks:
        faults.append(f"the rows name {len(requests)} requests, not {2 * bulks}")
    if not contents:
        faults.append("the rows name no content")
    return faults[:_FAULTS_SHOWN]


def _fault_in_request(store: ObjectStore, bulk_transfer_id: UUID, request_id: UUID, items: int) -> str | None:
    key = request_key(bulk_transfer_id.bytes, request_id.bytes)
    try:
        body = orjson.loads(unpack_request(store.get(key)).body)
    except (ObjectStoreError, CorruptRequest, orjson.JSONDecodeError) as error:
        return f"{key}: {error}"
    listed = body.get("individualTransfers") or body.get("individualTransferResults") or []
    return None if len(listed) == items else f"{key} lists {len(listed)} items, not {items}"


def _fault_in_content(store: ObjectStore, key: str) -> str | None:
    try:
        return None if content_key(store.get(key)) == key else f"{key} holds other bytes"
    except ObjectStoreError as error:
        return f"{key}: {error}"
