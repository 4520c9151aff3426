"""The bodies that FSPs send: from raw bytes to checked dictionaries, or to a Refusal that names the field.

Checked in this order; the first that fails is the refusal:

    3103  no more than ELEMENTS_MAX objects and arrays (checked before anything is built of them)
    3101  JSON: UTF-8, no NaN or Infinity, no number too large to be kept, no key twice, not nested deeper than NESTING_MAX
    3103  no more items of a bulk than `items_max`, a setting
    3102  a mandatory field is missing · 3103 a list is too long · 3101 type, pattern or format · 3100 anything else
    3100  a result of a bulk carries a fulfilment or an errorInformation, not both

The bytes are read by orjson and the dictionaries checked by pydantic-core in one call without Python code per item. It is
as fast as pydantic's own `validate_json` (1.7 against 1.6 ms for 1,000 items) and the safer pair: the handlers read the
kept bytes with orjson again, and whatever it refuses (NaN, 1e999) must be refused here, before the 202.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final, cast

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal
from schemas.fspiop.types import (
    TYPE_OF_PATTERN,
    BulkTransfersIDPutResponse,
    BulkTransfersPostRequest,
    ErrorInformationObject,
    IndividualTransferResult,
    TransfersIDPutResponse,
    TransfersPostRequest,
)

# FSPIOP's own limit, and the default of the setting.
ITEMS_MAX: Final = 1_000
# The bodies above are nested 6 deep at most; the rest is room for unknown fields.
NESTING_MAX: Final = 32
# A PUT of 1,000 refused items with 16 extensions each is 39,000; this leaves room for the highest setting of items.
ELEMENTS_MAX: Final = 400_000
# Beyond it a float no longer tells neighbouring integers apart.
_EXACT_MAX: Final = 2.0**53

_POST: Final = TypeAdapter(BulkTransfersPostRequest)
_PUT: Final = TypeAdapter(BulkTransfersIDPutResponse)
_PUT_ERROR: Final = TypeAdapter(ErrorInformationObject)
_TRANSFER_POST: Final = TypeAdapter(TransfersPostRequest)
_TRANSFER_PUT: Final = TypeAdapter(TransfersIDPutResponse)

_LITERAL_NAMES: Final = {
    "currency": "a Currency of FSPIOP 1.1",
    "bulkTransferState": "a BulkTransferState",
    "transferState": "a TransferState",
}
_TYPE_TEXTS: Final = {"string_type": "a string", "dict_type": "an object", "list_type": "an array"}


def parse_post(raw: bytes, items_max: int = ITEMS_MAX) -> BulkTransfersPostRequest:
    """The body of POST /bulkTransfers; raises Refusal."""
    body = _load(raw)
    _require_at_most(body, "individualTransfers", items_max)
    _validate(_POST, body)
    return cast(BulkTransfersPostRequest, body)


def parse_put(raw: bytes, items_max: int = ITEMS_MAX) -> BulkTransfersIDPutResponse:
    """The body of PUT /bulkTransfers/{ID}; raises Refusal."""
    body = _load(raw)
    _require_at_most(body, "individualTransferResults", items_max)
    _validate(_PUT, body)
    parsed = cast(BulkTransfersIDPutResponse, body)
    _require_one_outcome(parsed.get("individualTransferResults", ()))
    return parsed


def parse_put_error(raw: bytes) -> ErrorInformationObject:
    """The body of PUT /bulkTransfers/{ID}/error and of PUT /transfers/{ID}/error; raises Refusal."""
    body = _load(raw)
    _validate(_PUT_ERROR, body)
    return cast(ErrorInformationObject, body)


def parse_transfer_post(raw: bytes) -> TransfersPostRequest:
    """The body of POST /transfers; raises Refusal."""
    body = _load(raw)
    _validate(_TRANSFER_POST, body)
    return cast(TransfersPostRequest, body)


def parse_transfer_put(raw: bytes) -> TransfersIDPutResponse:
    """The body of PUT /transfers/{ID}; raises Refusal."""
    body = _load(raw)
    _validate(_TRANSFER_PUT, body)
    return cast(TransfersIDPutResponse, body)


def canonical_hash(value: object) -> bytes:
    """SHA-256 over the canonical JSON of a parsed body or item: neither the order of keys nor blanks matter.

    It tells a resend from a modified request (3106), and a transferId that is used again from one used for something else.
    """
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


def _load(raw: bytes) -> object:
    # What stands outside of strings: escaped quotes go first, then every second piece between quotes is outside.
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    outside = b"".join(unescaped.split(b'"')[::2])
    if outside.count(b"{") + outside.count(b"[") > ELEMENTS_MAX:
        raise Refusal(
            ErrorCode.TOO_MANY_ELEMENTS, f"the body has more than {ELEMENTS_MAX} objects and arrays", close=True
        )
    try:
        body: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"the body is not JSON: {error}") from error
    # A parser keeps one of two values under the same key, and another one keeps the other: nobody could say what was
    # meant. In JSON each key is followed by the only kind of colon that stands outside of strings.
    if outside.count(b":") != _count_keys(body):
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "the body has an object with the same key twice")
    return body


def _count_keys(body: object) -> int:
    """The keys of all objects in a body; raises Refusal past the limits that parsing does not know."""
    keys, depth = 0, 0
    level: list[Any] = [[body]]
    while level:
        # The list around the body is not its own.
        if depth > NESTING_MAX:
            raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"the body is nested deeper than {NESTING_MAX}")
        depth += 1
        below: list[Any] = []
        for container in level:
            values = container
            if type(container) is dict:
                keys += len(container)
                values = container.values()
            for value in values:
                kind = type(value)
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(value)
                elif kind is float and abs(value) > _EXACT_MAX:
                    raise Refusal(ErrorCode.MALFORMED_SYNTAX, "the body has a number too large to be kept exactly")
        level = below
    return keys


def _require_at_most(body: object, field: str, items_max: int) -> None:
    items = body.get(field) if isinstance(body, dict) else None
    if isinstance(items, list) and len(items) > items_max:
        raise Refusal(ErrorCode.TOO_MANY_ELEMENTS, f"{field} has {len(items)} elements, the limit is {items_max}")


def _require_one_outcome(results: Sequence[IndividualTransferResult]) -> None:
    for number, result in enumerate(results):
        if "fulfilment" in result and "errorInformation" in result:
            path = f"individualTransferResults[{number}]"
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"{path} has both fulfilment and errorInformation")


def _validate(adapter: TypeAdapter[Any], body: object) -> None:
    """Only the verdict is used: strict checks change nothing, and pydantic's copy has lost the unknown fields."""
    try:
        adapter.validate_python(body, strict=True)
    except ValidationError as error:
        raise _refusal_of(error.errors(include_url=False)[0]) from None


def _refusal_of(error: ErrorDetails) -> Refusal:
    path = _path_text(error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return Refusal(ErrorCode.MISSING_ELEMENT, f"{path} is missing")
    if kind in _TYPE_TEXTS:
        return Refusal(ErrorCode.MALFORMED_SYNTAX, f"{path} is not {_TYPE_TEXTS[kind]}")
    if kind == "string_pattern_mismatch":
        return Refusal(ErrorCode.MALFORMED_SYNTAX, f"{path} is not {TYPE_OF_PATTERN[context['pattern']]}")
    if kind == "too_long":
        return Refusal(ErrorCode.TOO_MANY_ELEMENTS, f"{path} has more than {context['max_length']} elements")
    if kind == "literal_error" and not isinstance(error["input"], str):
        return Refusal(ErrorCode.MALFORMED_SYNTAX, f"{path} is not a string")
    if kind == "literal_error":
        return Refusal(ErrorCode.VALIDATION_ERROR, f"{path} is not {_LITERAL_NAMES[str(error['loc'][-1])]}")
    if kind in {"string_too_short", "too_short"}:
        return Refusal(ErrorCode.VALIDATION_ERROR, f"{path} is empty")
    assert kind == "string_too_long", f"the schema has no constraint that fails as {kind}"
    return Refusal(ErrorCode.VALIDATION_ERROR, f"{path} is longer than {context['max_length']} characters")


def _path_text(location: Sequence[str | int]) -> str:
    """individualTransfers[17].transferAmount.amount; only names of known fields stand in it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".") or "the body"
