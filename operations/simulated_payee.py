"""A payee FSP: takes forwarded bulks and single transfers and answers each with a PUT, as its behaviour says.

A forward is answered 202 at once; the PUT follows when `delay_ms` has passed. The same forward again (the switch lost our
202) is taken and not answered a second time, as our PUT is on its way or has arrived. A PUT that meets no switch, or a
503, is sent again with the same bytes, `attempts_max` times.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httpx
import orjson

from operations.simulated_bulk import FSPIOP_CONTENT, SECRET, fulfilment_bytes, fulfilment_text, timestamp
from operations.simulated_bulk import base64url as text_of
from operations.simulated_endpoint import Checker, Receipt, SimulatedEndpoint
from operations.simulated_transfer import TRANSFERS_CONTENT


@dataclass(frozen=True, slots=True)
class PayeeBehaviour:
    """How a payee answers a forwarded bulk; as it stands here it commits everything.

    answer                        put, error (PUT /error) or silent (nothing, ever)
    commit_max                    the first so many are fulfilled, the others refused with errorInformation; None: all
    wrong_fulfilments             the first so many get a fulfilment that does not fit the condition
    omit                          the last so many are not mentioned
    results                       list, empty (a list of none) or absent (no list)
    bulk_transfer_state           what it says of the whole: COMPLETED, REJECTED, …
    transfer_state                what it says of a single transfer: COMMITTED, RESERVED, ABORTED
    completed_timestamp_shift_ms  how far its clock is wrong
    delay_ms                      how late it answers
    times, differs                how often it answers, and whether the later answers say something else
    destination                   FSPIOP-Destination; None: the payer (reference §11.21: payer or hub)
    continues_trace               whether its answer carries the trace context of the forward (W3C), or none
    version                       of the Content-Type
    """

    answer: str = "put"
    commit_max: int | None = None
    wrong_fulfilments: int = 0
    omit: int = 0
    results: str = "list"
    bulk_transfer_state: str = "COMPLETED"
    transfer_state: str = "COMMITTED"
    error_code: str = "5100"
    error_description: str = "Payee rejection"
    completed_timestamp_shift_ms: int = 0
    delay_ms: int = 0
    times: int = 1
    differs: bool = False
    destination: str | None = None
    continues_trace: bool = True
    version: str = "1.1"

    def __post_init__(self) -> None:
        if self.answer not in {"put", "error", "silent"} or self.results not in {"list", "empty", "absent"}:
            raise ValueError(f"no such answer or results: {self.answer}, {self.results}")


# By the names that the command line knows.
BEHAVIOURS: Mapping[str, PayeeBehaviour] = {
    "commit": PayeeBehaviour(),
    "refuse": PayeeBehaviour(commit_max=0),
    "half": PayeeBehaviour(commit_max=500),
    "reject": PayeeBehaviour(bulk_transfer_state="REJECTED", results="absent"),
    "error": PayeeBehaviour(answer="error"),
    "reserve": PayeeBehaviour(transfer_state="RESERVED"),
    "omit": PayeeBehaviour(omit=1),
    "wrong-fulfilment": PayeeBehaviour(wrong_fulfilments=1),
    "empty": PayeeBehaviour(results="empty"),
    "absent": PayeeBehaviour(results="absent"),
    "silent": PayeeBehaviour(answer="silent"),
    "late": PayeeBehaviour(delay_ms=5_000),
    "twice": PayeeBehaviour(times=2),
    "twice-differing": PayeeBehaviour(times=2, differs=True),
    "future": PayeeBehaviour(completed_timestamp_shift_ms=60_000),
}


@dataclass(frozen=True, slots=True)
class PayeeAnswer:
    """A PUT that this payee sent, and what the switch said to it (None: it could not be reached)."""

    entity_id: str
    path: str
    body: bytes
    status: int | None
    attempts: int


def answer_body(
    behaviour: PayeeBehaviour, forwarded: Mapping[str, Any], secret: bytes, *, time_number: int = 0
) -> bytes:
    """The body of the payee's answer to a forwarded bulk, the `time_number`th from 0."""
    if behaviour.answer == "error":
        description = behaviour.error_description
        if behaviour.differs and time_number:
            description = f"{description} ({time_number})"
        error = {"errorCode": behaviour.error_code, "errorDescription": description}
        return orjson.dumps({"errorInformation": error})
    shift_ms = behaviour.completed_timestamp_shift_ms
    body: dict[str, Any] = {
        "bulkTransferState": behaviour.bulk_transfer_state,
        "completedTimestamp": timestamp(shift_ms),
    }
    if behaviour.results != "absent":
        ids = [transfer["transferId"] for transfer in forwarded["individualTransfers"]]
        named = ids[: len(ids) - behaviour.omit] if behaviour.results == "list" else []
        body["individualTransferResults"] = [
            _result(behaviour, number, transfer_id, secret) for number, transfer_id in enumerate(named)
        ]
    if behaviour.differs and time_number:
        body["extensionList"] = {"extension": [{"key": "answer", "value": str(time_number)}]}
    return orjson.dumps(body)


def transfer_answer_body(behaviour: PayeeBehaviour, forwarded: Mapping[str, Any], secret: bytes) -> bytes:
    """The body of the payee's answer to a forwarded single transfer."""
    if behaviour.answer == "error":
        error = {"errorCode": behaviour.error_code, "errorDescription": behaviour.error_description}
        return orjson.dumps({"errorInformation": error})
    fulfilment = fulfilment_bytes(secret, forwarded["transferId"])
    if behaviour.wrong_fulfilments:
        fulfilment = bytes(byte ^ 0xFF for byte in fulfilment)
    body = {
        "transferState": behaviour.transfer_state,
        "fulfilment": text_of(fulfilment),
        "completedTimestamp": timestamp(behaviour.completed_timestamp_shift_ms),
    }
    return orjson.dumps(body)


def _result(behaviour: PayeeBehaviour, number: int, transfer_id: str, secret: bytes) -> dict[str, Any]:
    if behaviour.commit_max is not None and number >= behaviour.commit_max:
        error = {"errorCode": behaviour.error_code, "errorDescription": behaviour.error_description}
        return {"transferId": transfer_id, "errorInformation": error}
    if number < behaviour.wrong_fulfilments:
        wrong = bytes(byte ^ 0xFF for byte in fulfilment_bytes(secret, transfer_id))
        return {"transferId": transfer_id, "fulfilment": text_of(wrong)}
    return {"transferId": transfer_id, "fulfilment": fulfilment_text(secret, transfer_id)}


class SimulatedPayee(SimulatedEndpoint):
    """The payee `name` at a switch. `behaviour` and, for single bulks, `behaviours` may be changed while it runs."""

    role = "payee"

    def __init__(
        self,
        name: str,
        switch_url: str,
        *,
        behaviour: PayeeBehaviour = BEHAVIOURS["commit"],
        secret: bytes = SECRET,
        check: Checker | None = None,
        on_receipt: Callable[[Receipt], None] | None = None,
        attempts_max: int = 50,
        retry_ms: int = 200,
    ) -> None:
        super().__init__(name, check=check, on_receipt=on_receipt)
        self.behaviour = behaviour
        self.behaviours: dict[str, PayeeBehaviour] = {}
        self.answers: list[PayeeAnswer] = []
        self._switch_url = switch_url
        self._secret = secret
        self._attempts_max = attempts_max
        self._retry_ms = retry_ms
        self._client: httpx.AsyncClient | None = None

    def act(self, receipt: Receipt, body: bytes) -> None:
        # A repeat may be remembered before this one is acted on, so it is not their number that tells.
        first = self.received(receipt.entity_id)[0] is receipt
        behaviour = self.behaviours.get(receipt.entity_id, self.behaviour)
        if receipt.callback == "POST" and first and behaviour.answer != "silent":
            answer = self._answer if receipt.resource == "bulkTransfers" else self._answer_transfer
            names = ("traceparent", "tracestate") if behaviour.continues_trace else ()
            trace = {name: receipt.headers[name] for name in names if name in receipt.headers}
            self.start(answer(behaviour, orjson.loads(body), trace))

    async def close(self) -> None:
        await super().close()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _answer(self, behaviour: PayeeBehaviour, forwarded: Mapping[str, Any], trace: Mapping[str, str]) -> None:
        bulk_transfer_id = forwarded["bulkTransferId"]
        end = "/error" if behaviour.answer == "error" else ""
        path = f"/bulkTransfers/{bulk_transfer_id}{end}"
        if behaviour.delay_ms:
            await asyncio.sleep(behaviour.delay_ms / 1000)
        first = answer_body(behaviour, forwarded, self._secret)
        for time_number in range(behaviour.times):
            # Saying the same twice means the same bytes: the completedTimestamp included.
            again = behaviour.differs and time_number
            body = answer_body(behaviour, forwarded, self._secret, time_number=time_number) if again else first
            headers = {
                "content-type": FSPIOP_CONTENT.format(version=behaviour.version),
                "date": formatdate(usegmt=True),
                "fspiop-source": self.name,
                "fspiop-destination": behaviour.destination or forwarded["payerFsp"],
                **trace,
            }
            status, attempts = await self._put(path, headers, body)
            self.answers.append(PayeeAnswer(bulk_transfer_id, path, body, status, attempts))

    async def _answer_transfer(
        self, behaviour: PayeeBehaviour, forwarded: Mapping[str, Any], trace: Mapping[str, str]
    ) -> None:
        path = f"/transfers/{forwarded['transferId']}{'/error' if behaviour.answer == 'error' else ''}"
        if behaviour.delay_ms:
            await asyncio.sleep(behaviour.delay_ms / 1000)
        body = transfer_answer_body(behaviour, forwarded, self._secret)
        headers = {
            "content-type": TRANSFERS_CONTENT.format(version=behaviour.version),
            "date": formatdate(usegmt=True),
            "fspiop-source": self.name,
            "fspiop-destination": behaviour.destination or forwarded["payerFsp"],
            **trace,
        }
        for _ in range(behaviour.times):
            status, attempts = await self._put(path, headers, body)
            self.answers.append(PayeeAnswer(forwarded["transferId"], path, body, status, attempts))

    async def _put(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int | None, int]:
        if self._client is None:
            self._client = httpx.AsyncClient(base_url=self._switch_url, timeout=30, trust_env=False)
            # An FSP's PUT carries no Accept (reference §2).
            del self._client.headers["accept"]
        status = None
        for attempt in range(1, self._attempts_max + 1):
            try:
                status = (await self._client.put(path, headers=headers, content=body)).status_code
            except httpx.TransportError:
                status = None
            if status not in {None, 503}:
                return status, attempt
            await asyncio.sleep(self._retry_ms / 1000)
        return status, self._attempts_max
