"""How a batch reaches a statement: as one JSON document that the server spreads into rows.

Measured best together with COPY (6 to 9 times cheaper than rows one by one), and unlike COPY it can be joined, filtered and
returned from. Bytes travel as PostgreSQL's hex form, amounts as decimal text.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson


def document(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON array for `json_to_recordset(CAST(:rows AS json))`."""
    return orjson.dumps(list(rows)).decode()


def hex_bytes(value: bytes) -> str:
    """The text form that PostgreSQL reads as bytea."""
    return "\\x" + value.hex()
