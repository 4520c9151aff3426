"""A callback's address and headers, as FSPIOP and its clients want them (reference §2, §6, §11.8, §11.12, §11.22).

Everything in a bulk's callbacks is said by the hub, so FSPIOP-Source is the hub's name. `fspiop-uri` of a bulk's PUT begins
with the FSP's name, as the ecosystem's clients expect it, and that of a single transfer does not, while the address itself
is the FSP's own endpoint. A PUT and a PATCH carry no Accept; a forwarded POST does. The headers are made once, when the
callback is written down, and are the same in every attempt; Host, Content-Length and the hub's signature are added on the
way. What another FSP said is passed on with that FSP's headers, and nothing here is used for it but the address.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit

from domain.delivery import Callback, Resource
from domain.identifiers import id_text

# Per resource and callback the types of endpoint that serve it, the best first (a PATCH may go to PUT's, §11.8).
ENDPOINT_TYPES: Mapping[tuple[str, str], tuple[str, ...]] = {
    (Resource.BULK_TRANSFERS, Callback.POST): ("FSPIOP_CALLBACK_URL_BULK_TRANSFER_POST",),
    (Resource.BULK_TRANSFERS, Callback.PUT): ("FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT",),
    (Resource.BULK_TRANSFERS, Callback.PUT_ERROR): ("FSPIOP_CALLBACK_URL_BULK_TRANSFER_ERROR",),
    (Resource.TRANSFERS, Callback.POST): ("FSPIOP_CALLBACK_URL_TRANSFER_POST",),
    (Resource.TRANSFERS, Callback.PUT): ("FSPIOP_CALLBACK_URL_TRANSFER_PUT",),
    (Resource.TRANSFERS, Callback.PUT_ERROR): ("FSPIOP_CALLBACK_URL_TRANSFER_ERROR",),
    (Resource.TRANSFERS, Callback.PATCH): (
        "FSPIOP_CALLBACK_URL_TRANSFER_PATCH",
        "FSPIOP_CALLBACK_URL_TRANSFER_PUT",
    ),
}

# The name of the id in an endpoint's template.
ENDPOINT_VARIABLES: Mapping[str, str] = {Resource.BULK_TRANSFERS: "id", Resource.TRANSFERS: "transferId"}

_VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class UnusableEndpoint(ValueError):
    """The FSP's endpoint of this type is missing, or no address can be made of it; the text says which and why."""


def content_type(resource: Resource) -> str:
    """What the hub's own callbacks are in; Accept of a forwarded POST says the same."""
    return f"application/vnd.interoperability.{resource}+json;version=1.1"


def http_method(callback: Callback) -> str:
    return "PUT" if callback is Callback.PUT_ERROR else callback.value


def callback_uri(resource: Resource, callback: Callback, fsp: str, entity_id: bytes) -> str:
    """What `fspiop-uri` says."""
    if callback is Callback.POST:
        return f"/{resource}"
    end = "/error" if callback is Callback.PUT_ERROR else ""
    prefix = f"/{fsp}" if resource is Resource.BULK_TRANSFERS else ""
    return f"{prefix}/{resource}/{id_text(entity_id)}{end}"


def callback_headers(
    resource: Resource, callback: Callback, source: str, fsp: str, entity_id: bytes, at: datetime
) -> dict[str, str]:
    """All headers of a callback from `source` (the hub) to `fsp`; `at` is when the callback was written down, in UTC."""
    headers = {
        "content-type": content_type(resource),
        "date": format_datetime(at.astimezone(UTC), usegmt=True),
        "fspiop-source": source,
        "fspiop-destination": fsp,
        "fspiop-http-method": http_method(callback),
        "fspiop-uri": callback_uri(resource, callback, fsp, entity_id),
    }
    if callback is Callback.POST:
        headers["accept"] = content_type(resource)
    return headers


def callback_url(resource: Resource, callback: Callback, fsp: str, template: str | None, entity_id: bytes) -> str:
    """The address made of the FSP's endpoint, a mustache template whose one variable is the id; raises UnusableEndpoint."""
    endpoint_type = ENDPOINT_TYPES[resource, callback][0]
    variable = ENDPOINT_VARIABLES[resource]
    if template is None:
        raise UnusableEndpoint(f"{fsp} has no endpoint of type {endpoint_type}")
    names = _VARIABLE.findall(template)
    if any(name.lower() != variable.lower() for name in names):
        raise UnusableEndpoint(
            f"endpoint {endpoint_type} of {fsp} knows no variable but {{{{{variable}}}}}: {template}"
        )
    if callback is not Callback.POST and not names:
        raise UnusableEndpoint(
            f"endpoint {endpoint_type} of {fsp} does not say where {{{{{variable}}}}} stands: {template}"
        )
    url = _VARIABLE.sub(id_text(entity_id), template)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UnusableEndpoint(f"endpoint {endpoint_type} of {fsp} is no http or https address: {template}")
    return url
