"""How a batch reaches a statement: as one JSON document that the server spreads into rows.

Measured best together with COPY (6 to 9 times cheaper than rows one by one), and unlike COPY it can be joined, filtered and
returned from. Bytes travel as PostgreSQL's hex form, amounts as decimal text. A list of
keys travels as an array literal.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson


def document(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON array for `json_to_recordset(CAST(:rows AS json))`."""
    return orjson.dumps(list(rows)).decode()


def int_array(values: Iterable[int]) -> str:
    """The literal of an integer array: joining digits is several times cheaper than the driver's list dumper."""
    return f"{{{','.join(map(str, values))}}}"


def uuid_array(values: Iterable[bytes]) -> str:
    """The literal of a uuid array, from 16 bytes each."""
    return f"{{{','.join([value.hex() for value in values])}}}"


def hex_bytes(value: bytes) -> str:
    """The text form that PostgreSQL reads as bytea."""
    return "\\x" + value.hex()
