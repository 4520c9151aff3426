"""Well-formed requests of FSPs, made to be changed by a test, and the app in this process to send them to."""

import asyncio
import base64
import hashlib
import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from bulk_api_adapter.fspiop.app import make_fspiop_app
from bulk_api_adapter.fspiop.authority import Authority
from bulk_api_adapter.fspiop.in_flight import InFlightBound
from bulk_api_adapter.fspiop.limits import EdgeLimits
from tests.fspiop.fakes import MemoryObjectStore, MemoryStream

MEDIA_TYPE = "application/vnd.interoperability.bulkTransfers+json"
TRANSFERS_MEDIA_TYPE = "application/vnd.interoperability.transfers+json"
NOW_MS = 1_795_000_000_123
BULK_ID = "b51ec534-ee48-4575-b6a9-ead2955b8069"
TRANSFER_ID = "7f5d9784-3a57-4865-9aa0-7c81a6d9a4b1"
HEADERS: Mapping[str, str] = {
    "accept": f"{MEDIA_TYPE};version=1.1",
    "content-type": f"{MEDIA_TYPE};version=1.1",
    "date": "Tue, 15 Nov 1994 08:12:31 GMT",
    "fspiop-source": "payerfsp",
    "fspiop-destination": "payeefsp",
}


def headers(method: str = "POST", /, **changes: str | None) -> dict[str, str]:
    """The headers of a request; `None` leaves one out, and an underscore in a name stands for a dash."""
    changed = {name.replace("_", "-"): value for name, value in changes.items()}
    values: dict[str, str | None] = {**HEADERS, **changed}
    if method == "PUT" and "accept" not in changed:
        values["accept"] = None
    return {name: value for name, value in values.items() if value is not None}


def transfer_headers(method: str = "POST", version: str = "1.1", /, **changes: str | None) -> dict[str, str]:
    """The headers of a request to /transfers."""
    media_type = f"{TRANSFERS_MEDIA_TYPE};version={version}"
    types: dict[str, str | None] = {"content_type": media_type}
    if method != "PUT":
        types["accept"] = media_type
    return headers(method, **{**types, **changes})


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def post_body(items: int = 2, seed: int = 0) -> dict[str, Any]:
    source = random.Random(seed)
    return {
        "bulkTransferId": BULK_ID,
        "bulkQuoteId": str(uuid.UUID(bytes=source.randbytes(16), version=4)),
        "payerFsp": "payerfsp",
        "payeeFsp": "payeefsp",
        "individualTransfers": [
            {
                "transferId": str(uuid.UUID(bytes=source.randbytes(16), version=4)),
                "transferAmount": {"currency": "USD", "amount": str(number + 1)},
                "ilpPacket": base64url(source.randbytes(225)),
                "condition": base64url(hashlib.sha256(source.randbytes(32)).digest()),
            }
            for number in range(items)
        ],
        "expiration": "2026-11-21T10:15:30.123Z",
    }


def put_body(items: int = 2) -> dict[str, Any]:
    return {
        "bulkTransferState": "COMPLETED",
        "completedTimestamp": "2026-11-21T10:15:31.000+01:00",
        "individualTransferResults": [
            {"transferId": transfer["transferId"], "fulfilment": transfer["condition"]}
            for transfer in post_body(items)["individualTransfers"]
        ],
    }


def transfer_post_body(seed: int = 0) -> dict[str, Any]:
    source = random.Random(seed)
    return {
        "transferId": TRANSFER_ID,
        "payerFsp": "payerfsp",
        "payeeFsp": "payeefsp",
        "amount": {"currency": "USD", "amount": "17.5"},
        "ilpPacket": base64url(source.randbytes(225)),
        "condition": base64url(hashlib.sha256(source.randbytes(32)).digest()),
        "expiration": "2026-11-21T10:15:30.123Z",
    }


def transfer_put_body(state: str = "COMMITTED") -> dict[str, Any]:
    # Half a minute before NOW_MS.
    return {
        "transferState": state,
        "fulfilment": base64url(random.Random(0).randbytes(32)),
        "completedTimestamp": "2026-11-18T11:06:10.123Z",
    }


def error_body() -> dict[str, Any]:
    return {"errorInformation": {"errorCode": "5100", "errorDescription": "Payee rejection"}}


def changed(body: Any, path: Sequence[str | int], value: Any) -> Any:
    """A copy of a body with another value at a path; `...` takes the field out."""
    copy = json.loads(json.dumps(body))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


@dataclass
class Edge:
    """The app on a stream and a store in memory. `sent` is how a request ends; nothing of HTTP's default is added."""

    stream: MemoryStream = field(default_factory=MemoryStream)
    store: MemoryObjectStore = field(default_factory=MemoryObjectStore)
    limits: EdgeLimits = field(default_factory=EdgeLimits)
    authority: Authority | None = None
    in_flight: InFlightBound | None = None
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        self.app = make_fspiop_app(
            self.stream,
            self.store,
            self.limits,
            authority=self.authority,
            in_flight=self.in_flight,
            clock_ms=lambda: NOW_MS,
        )

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        content: bytes | None = None,
    ) -> httpx.Response:
        return asyncio.run(self.exchange(method, path, headers, content))

    async def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        content: bytes | None = None,
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        request = httpx.Request(method, f"http://switch{path}", headers=headers, content=content)
        response = await transport.handle_async_request(request)
        await response.aread()
        return response

    def close(self) -> None:
        """What the end of the app's lifespan does."""

        async def lifespan() -> None:
            async with self.app.router.lifespan_context(self.app):
                pass

        asyncio.run(lifespan())

    def untouched(self) -> bool:
        """Whether nothing was kept and nothing was published."""
        return not self.store.objects and not self.stream.records
