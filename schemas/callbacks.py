"""A callback's address and headers, as FSPIOP and its clients want them (reference §2, §6, §11.8, §11.12).

Everything in a bulk's callbacks is said by the hub, so FSPIOP-Source is the hub's name. `fspiop-uri` of a PUT begins with
the FSP's name, as the ecosystem's clients expect it, while the address itself is the FSP's own endpoint. A PUT carries no
Accept; a forwarded POST does. The headers are made once, when the callback is written down, and are the same in every
attempt; Host and Content-Length are added on the way.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit

from domain.delivery import Callback
from domain.identifiers import id_text

CONTENT_TYPE = "application/vnd.interoperability.bulkTransfers+json;version=1.1"
ACCEPT = CONTENT_TYPE

ENDPOINT_TYPES: Mapping[str, str] = {
    Callback.POST: "FSPIOP_CALLBACK_URL_BULK_TRANSFER_POST",
    Callback.PUT: "FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT",
    Callback.PUT_ERROR: "FSPIOP_CALLBACK_URL_BULK_TRANSFER_ERROR",
}

_VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class UnusableEndpoint(ValueError):
    """The FSP's endpoint of this type is missing, or no address can be made of it; the text says which and why."""


def http_method(callback: Callback) -> str:
    return "POST" if callback is Callback.POST else "PUT"


def callback_uri(callback: Callback, fsp: str, bulk_transfer_id: bytes) -> str:
    """What `fspiop-uri` says."""
    if callback is Callback.POST:
        return "/bulkTransfers"
    end = "/error" if callback is Callback.PUT_ERROR else ""
    return f"/{fsp}/bulkTransfers/{id_text(bulk_transfer_id)}{end}"


def callback_headers(
    callback: Callback, source: str, fsp: str, bulk_transfer_id: bytes, at: datetime
) -> dict[str, str]:
    """All headers of a callback from `source` (the hub) to `fsp`; `at` is when the callback was written down, in UTC."""
    headers = {
        "content-type": CONTENT_TYPE,
        "date": format_datetime(at.astimezone(UTC), usegmt=True),
        "fspiop-source": source,
        "fspiop-destination": fsp,
        "fspiop-http-method": http_method(callback),
        "fspiop-uri": callback_uri(callback, fsp, bulk_transfer_id),
    }
    if callback is Callback.POST:
        headers["accept"] = ACCEPT
    return headers


def callback_url(callback: Callback, fsp: str, template: str | None, bulk_transfer_id: bytes) -> str:
    """The address made of the FSP's endpoint, a mustache template whose one variable is `id`; raises UnusableEndpoint."""
    endpoint_type = ENDPOINT_TYPES[callback]
    if template is None:
        raise UnusableEndpoint(f"{fsp} has no endpoint of type {endpoint_type}")
    names = _VARIABLE.findall(template)
    if any(name.lower() != "id" for name in names):
        raise UnusableEndpoint(f"endpoint {endpoint_type} of {fsp} knows no variable but {{{{id}}}}: {template}")
    if callback is not Callback.POST and not names:
        raise UnusableEndpoint(f"endpoint {endpoint_type} of {fsp} does not say where {{{{id}}}} stands: {template}")
    url = _VARIABLE.sub(id_text(bulk_transfer_id), template)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UnusableEndpoint(f"endpoint {endpoint_type} of {fsp} is no http or https address: {template}")
    return url
