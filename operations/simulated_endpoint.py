"""What both simulated FSPs are made of: an ASGI app that takes the switch's callbacks, remembers and answers them.

Each request is judged and remembered as a `Receipt`: by a checker that the tests bring (it knows the OpenAPI document), and
by what an FSP can see for itself: whether it was meant at all, and whether the same request came before, byte for byte. Then
it is answered (202 to a POST, 200 to a PUT): the switch knows of no delivery before the FSP does. GET /summary tells counts
and violations to whoever drives the FSP from another process. Memory is bounded: past `bodies_max_bytes` bodies are
forgotten (their digests are not), past `receipts_max` requests are refused with 503.
"""

import asyncio
import contextlib
import hashlib
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn

# (method, path, headers, body) → what is wrong with it.
Checker = Callable[[str, str, Mapping[str, str], bytes], list[str]]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_BYTES_MAX = 5_242_880
SUMMARY_VIOLATIONS_MAX = 100

_PATH = re.compile(r"/(bulkTransfers|transfers)(?:/([^/]+)(/error)?)?")
# The name of the id in the body of a POST.
_ID_FIELDS = {"bulkTransfers": "bulkTransferId", "transfers": "transferId"}
_SUCCESSES = {"POST": 202}


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request as it came, about a bulkTransferId or a transferId. `callback` is POST, PUT, PUT_ERROR or PATCH.

    `status` is what it was answered with.
    `is_repeat` says that the very same bytes, headers included, had come before. `body` is empty once memory is full.
    """

    callback: str
    resource: str
    entity_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    digest: bytes
    status: int
    received_at_ms: int
    is_repeat: bool
    violations: tuple[str, ...] = field(default=())

    def json(self) -> Any:
        return orjson.loads(self.body)


class SimulatedEndpoint:
    """The receiving side of an FSP. Its attributes may be read from any thread, and `status_of` be changed meanwhile."""

    role = "fsp"

    def __init__(
        self,
        name: str,
        *,
        check: Checker | None = None,
        on_receipt: Callable[[Receipt], None] | None = None,
        receipts_max: int = 100_000,
        bodies_max_bytes: int = 512 * 1024 * 1024,
    ) -> None:
        self.name = name
        self.receipts: list[Receipt] = []
        # What a request is answered with instead of 202 or 200, None for that; only a success is worked on.
        self.status_of: Callable[[str, str], int | None] = lambda _method, _path: None
        self._check = check
        self._on_receipt = on_receipt
        self._receipts_max = receipts_max
        self._bodies_left_bytes = bodies_max_bytes
        self._by_id: dict[str, list[Receipt]] = defaultdict(list)
        self._digests: set[bytes] = set()
        self._changed = threading.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what was received ---

    @property
    def violations(self) -> list[str]:
        """Everything that was wrong with any request, with the request before it."""
        with self._changed:
            return [f"{one.method} {one.path}: {fault}" for one in self.receipts for fault in one.violations]

    @property
    def repeats(self) -> int:
        """How many requests had come before, byte for byte."""
        with self._changed:
            return sum(one.is_repeat for one in self.receipts)

    @property
    def outcomes(self) -> dict[str, list[Receipt]]:
        """What was told and taken (answered with success), per id, in the order of arrival."""
        with self._changed:
            return {entity_id: list(receipts) for entity_id, receipts in self._by_id.items()}

    def received(self, entity_id: str) -> list[Receipt]:
        with self._changed:
            return list(self._by_id.get(entity_id, ()))

    def wait_for(self, entity_id: str, count: int = 1, timeout_s: float = 30) -> list[Receipt]:
        """What came for a bulk or a transfer, once that is `count` requests that are no repeats; raises TimeoutError."""

        def distinct() -> list[Receipt]:
            return [one for one in self._by_id.get(entity_id, ()) if not one.is_repeat]

        with self._changed:
            if not self._changed.wait_for(lambda: len(distinct()) >= count, timeout_s):
                raise TimeoutError(
                    f"{self.name} got {len(distinct())} of {count} callbacks for {entity_id} in {timeout_s} s"
                )
            return distinct()

    def summary(self) -> dict[str, Any]:
        with self._changed:
            counts: dict[str, int] = defaultdict(int)
            for one in self.receipts:
                counts[one.callback] += 1
            return {
                "role": self.role,
                "name": self.name,
                "bulks": len({one.entity_id for one in self.receipts if one.resource == "bulkTransfers"}),
                "received": dict(counts),
                "repeats": sum(one.is_repeat for one in self.receipts),
                "violations": [fault for one in self.receipts for fault in one.violations][:SUMMARY_VIOLATIONS_MAX],
            }

    # --- the ASGI app ---

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve this with any ASGI server; `served` below does."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/summary"):
            await _answer(send, 200, orjson.dumps(self.summary()))
            return
        try:
            body = await _read(receive)
        except _Gone:
            return
        found = _PATH.fullmatch(path)
        callback = None if found is None else _callback(method, found)
        if body is None or found is None or callback is None or len(self.receipts) >= self._receipts_max:
            await _answer(send, 413 if body is None else 404 if callback is None else 503)
            return
        status = self.status_of(method, path) or _SUCCESSES.get(method, 200)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        resource = found.group(1)
        entity_id = found.group(2) or _id_in(body, _ID_FIELDS[resource])
        receipt = self._remember((callback, resource, entity_id), method, path, headers, body, status)
        # Where the sender has gone meanwhile this goes nowhere: he has told all, and does not know that it was heard.
        await _answer(send, status)
        if 200 <= status <= 299:
            self.act(receipt, body)

    def act(self, receipt: Receipt, body: bytes) -> None:
        """What this FSP does after it has answered; called on the event loop, once per request that it took."""

    def start(self, work: Awaitable[None]) -> None:
        """Let something run on beside the requests, until it ends or the FSP is stopped."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Called when the server stops."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _remember(
        self, about: tuple[str, str, str], method: str, path: str, headers: dict[str, str], body: bytes, status: int
    ) -> Receipt:
        callback, resource, entity_id = about
        violations = [] if self._check is None else self._check(method, path, headers, body)
        if headers.get("fspiop-destination") != self.name:
            violations.append(f"this is {self.name}, not {headers.get('fspiop-destination')}")
        digest = hashlib.sha256(orjson.dumps([method, path, sorted(headers.items())]) + body).digest()
        with self._changed:
            self._bodies_left_bytes -= len(body)
            receipt = Receipt(
                callback=callback,
                resource=resource,
                entity_id=entity_id,
                method=method,
                path=path,
                headers=headers,
                body=body if self._bodies_left_bytes >= 0 else b"",
                digest=digest,
                status=status,
                received_at_ms=time.time_ns() // 1_000_000,
                is_repeat=digest in self._digests,
                violations=tuple(violations),
            )
            self._digests.add(digest)
            self.receipts.append(receipt)
            if 200 <= status <= 299:
                self._by_id[entity_id].append(receipt)
            self._changed.notify_all()
        if self._on_receipt is not None:
            self._on_receipt(receipt)
        return receipt

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        assert message["type"] == "lifespan.shutdown"
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@contextlib.contextmanager
def served(endpoint: SimulatedEndpoint, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve an FSP on a thread within a `with` block; yields its URL. Port 0 takes a free one."""
    with socket.create_server((host, port)) as listening:
        server = _Server(_config(endpoint))
        thread = threading.Thread(target=server.run, args=([listening],), name=f"simulated-{endpoint.name}")
        thread.start()
        try:
            while not server.is_up.wait(0.05):
                if not thread.is_alive():
                    raise RuntimeError(f"the simulated FSP {endpoint.name} did not start")
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def serve_forever(endpoint: SimulatedEndpoint, port: int, host: str = "127.0.0.1") -> None:
    """Serve an FSP on the main thread until SIGTERM or SIGINT."""
    with socket.create_server((host, port)) as listening:
        _Server(_config(endpoint)).run([listening])


def _config(endpoint: SimulatedEndpoint) -> uvicorn.Config:
    return uvicorn.Config(
        endpoint.app,
        interface="asgi3",
        proxy_headers=False,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


def _callback(method: str, found: re.Match[str]) -> str | None:
    resource, entity_id, error = found.groups()
    if method == "POST" and entity_id is None:
        return "POST"
    if method == "PUT" and entity_id is not None:
        return "PUT_ERROR" if error else "PUT"
    if method == "PATCH" and entity_id is not None and resource == "transfers" and not error:
        return "PATCH"
    return None


def _id_in(body: bytes, field_name: str) -> str:
    try:
        return str(orjson.loads(body)[field_name])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "unreadable"


class _Gone(Exception):
    """Who sent the request went away before its end, as a deliverer does that is killed: nothing was told."""


async def _read(receive: Receive) -> bytes | None:
    """The body; None when it is longer than FSPIOP allows. Raises _Gone."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
