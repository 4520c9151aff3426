"""The headers of a request to /bulkTransfers, checked in the order of Mojaloop's adapter (reference §2, §11.12–15).

    3104  all headers together within `header_bytes_max`
    3101  no header twice that may stand there once (two FSPIOP-Source would be two senders)
    3102  FSPIOP-Source is there · 3101 it is an FspId · 3100 x-client-id, which a gateway sets, is the same FSP
    3102  Accept is there (GET, POST) · 3101 well formed · 3001 (406) names a version we speak
    3102  Date is there · 3101 is an HTTP Date
    3101  Content-Length is a number · 3104 within `body_bytes_max`
    3102  Content-Type is there · 3101 well formed · 3001 (406) is in a version we speak
    3101  FSPIOP-Destination, if it is there, is an FspId

On a PUT, Accept is checked only if it is there and does not say `*/*`, which HTTP clients add by themselves. `traceparent`
and `tracestate` are dropped when they are not valid, `baggage` always; neither is ever refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.fspiop_errors import ErrorCode
from schemas.fspiop.datetimes import MalformedDateTime, parse_http_date_ms
from schemas.fspiop.errors import Refusal
from schemas.fspiop.types import FSP_ID_LENGTH_MAX

BULK_TRANSFERS: Final = "bulkTransfers"
HEADER_BYTES_MAX: Final = 65_536
BODY_BYTES_MAX: Final = 5_242_880
_TRACESTATE_LENGTH_MAX = 512

CONTENT_VERSIONS: Final = ("1.0", "1.1", "2.0")
ACCEPT_VERSIONS: Final = frozenset({*CONTENT_VERSIONS, "1", "2"})
# The texts are compared by clients (§11.15).
_ACCEPT_VERSION_TEXT = "The Client requested an unsupported version, see extension list for supported version(s)."
_CONTENT_VERSION_TEXT = "Client supplied a protocol version which is not supported by the server"
_SUPPORTED_VERSIONS = tuple((version.split(".")[0], version.split(".")[1]) for version in CONTENT_VERSIONS)

_KEPT = frozenset({"content-type", "accept", "date"})
_SINGLE = frozenset({"content-type", "content-length", "date", "x-client-id", "traceparent"})
_FSP_ID = re.compile(rf"[\x20-\x7e]{{1,{FSP_ID_LENGTH_MAX}}}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """What the checked headers say; `kept` are those that stay with the request, under lower-case names."""

    source: str
    destination: str | None
    date_ms: int
    kept: Mapping[str, str]

    @property
    def trace(self) -> tuple[tuple[str, bytes], ...]:
        """The W3C trace context as record headers, empty unless it was valid."""
        return tuple((name, self.kept[name].encode()) for name in ("traceparent", "tracestate") if name in self.kept)


def check_headers(
    method: str,
    headers: Sequence[tuple[str, str]],
    *,
    header_bytes_max: int = HEADER_BYTES_MAX,
    body_bytes_max: int = BODY_BYTES_MAX,
    resource: str = BULK_TRANSFERS,
) -> RequestHeaders:
    """Check the headers of one request, their names in lower case; raises Refusal."""
    if sum(len(name) + len(value) + len(": \r\n") for name, value in headers) > header_bytes_max:
        raise Refusal(ErrorCode.TOO_LARGE_PAYLOAD, f"the headers are larger than {header_bytes_max} bytes in total")
    values = _by_name(headers)
    source = _required(values, "fspiop-source", "FSPIOP-Source")
    _require_fsp_id(source, "FSPIOP-Source")
    if values.get("x-client-id", source) != source:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "x-client-id is not the FSP of FSPIOP-Source")
    _check_accept(method, values, resource)
    date_ms = _date_ms(_required(values, "date", "Date"))
    _check_content_length(values.get("content-length"), body_bytes_max)
    _check_content_type(_required(values, "content-type", "Content-Type"), resource)
    destination = values.get("fspiop-destination")
    if destination is not None:
        _require_fsp_id(destination, "FSPIOP-Destination")
    return RequestHeaders(source, destination, date_ms, _kept(values))


def _by_name(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in headers:
        if name not in values:
            values[name] = value.strip(" \t")
        elif name in _SINGLE or name.startswith("fspiop-"):
            raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"{name[:40]} occurs more than once")
        else:
            values[name] += f",{value}"
    return values


def _required(values: Mapping[str, str], name: str, shown: str) -> str:
    value = values.get(name)
    if value is None:
        raise Refusal(ErrorCode.MISSING_ELEMENT, f"{shown} header is missing")
    return value


def _require_fsp_id(value: str, shown: str) -> None:
    if _FSP_ID.fullmatch(value) is None:
        raise Refusal(
            ErrorCode.MALFORMED_SYNTAX, f"{shown} header is not an FspId of 1 to {FSP_ID_LENGTH_MAX} characters"
        )


def _check_accept(method: str, values: Mapping[str, str], resource: str) -> None:
    if method == "PUT" and ("accept" not in values or "*/*" in values["accept"]):
        return
    item = rf"application/vnd\.interoperability\.{resource}\+json(?:[ \t]?;[ \t]?version=([0-9]+(?:\.[0-9]+)?))?"
    items = [re.fullmatch(item, text) for text in _required(values, "accept", "Accept").split(",")]
    versions = [match.group(1) for match in items if match is not None]
    if len(versions) != len(items):
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"Accept header is not a list of {_media_type(resource)}")
    # An item without a version takes any.
    if not any(version is None or version in ACCEPT_VERSIONS for version in versions):
        raise Refusal(ErrorCode.UNACCEPTABLE_VERSION, _ACCEPT_VERSION_TEXT, extensions=_SUPPORTED_VERSIONS)


def _check_content_type(value: str, resource: str) -> None:
    pattern = rf"application/vnd\.interoperability\.{resource}\+json[ \t]?;[ \t]?version=([0-9]+\.[0-9]+)"
    match = re.fullmatch(pattern, value)
    if match is None:
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"Content-Type header is not {_media_type(resource)};version=1.1")
    if match.group(1) not in CONTENT_VERSIONS:
        raise Refusal(ErrorCode.UNACCEPTABLE_VERSION, _CONTENT_VERSION_TEXT, extensions=_SUPPORTED_VERSIONS)


def _media_type(resource: str) -> str:
    return f"application/vnd.interoperability.{resource}+json"


def _date_ms(value: str) -> int:
    try:
        return parse_http_date_ms(value)
    except MalformedDateTime as error:
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "Date header is not like Tue, 15 Nov 1994 08:12:31 GMT") from error


def _check_content_length(value: str | None, body_bytes_max: int) -> None:
    if value is None:
        return
    if re.fullmatch(r"[0-9]{1,19}", value) is None:
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "Content-Length header is not a number of bytes")
    if int(value) > body_bytes_max:
        raise Refusal(ErrorCode.TOO_LARGE_PAYLOAD, f"Content-Length is {value} bytes, the limit is {body_bytes_max}")


def _kept(values: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in values.items() if name in _KEPT or name.startswith("fspiop-")}
    traceparent = values.get("traceparent", "")
    if _TRACEPARENT.fullmatch(traceparent) is not None:
        kept["traceparent"] = traceparent
        tracestate = values.get("tracestate", "")
        if 0 < len(tracestate) <= _TRACESTATE_LENGTH_MAX and tracestate.isascii():
            kept["tracestate"] = tracestate
    return kept
