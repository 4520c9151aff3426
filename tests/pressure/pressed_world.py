"""A running world with small bounds, payers that send more than it takes, and an eye on the memory of its processes."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import text

from db.bulks import bulks_by_id
from domain.identifiers import id_bytes
from domain.states import BulkState
from operations.simulated_bulk import Bulk, build_bulk
from operations.verification import verify_database
from tests.bulks import PAYEE, PAYER
from tests.fspiop.requests import headers
from tests.operations.processes import wait_until
from tests.process.running_world import RunningWorld

MIB = 1024 * 1024
ITEMS = 50
# About 200 kB a bulk: what is kept of bodies that were refused is soon seen.
ILP_DATA_BYTES = 2_800
BODY_BYTES_MAX = MIB
REQUEST_BYTES_IN_FLIGHT_MAX = 4 * MIB
RETRY_AFTER_S_MAX = 3
SENDERS = 32
_IMPATIENCE_S = 0.2
_REFUSED = "Service currently unavailable - "

SETTINGS = {
    "batch_items": "200",
    "items_per_bulk_max": str(ITEMS),
    "body_bytes_max": str(BODY_BYTES_MAX),
    "request_bytes_in_flight_max": str(REQUEST_BYTES_IN_FLIGHT_MAX),
    "answer_bytes_in_flight_min": str(MIB),
    "requests_in_flight_max": "24",
    "answers_in_flight_min": "6",
    "in_flight_single_transfers_min": "0",
    "in_flight_single_transfers_of_all_min": "0",
    "retry_after_s_max": str(RETRY_AFTER_S_MAX),
    "callback_internal_addresses": "loopback",
}
# docs/operating.md, "Back-pressure": bodies as they came and packed, the packed ones of twelve writes that hang, one body
# being parsed; and what the interpreter does not give back.
EDGE_GROWTH_BYTES_MAX = 2 * REQUEST_BYTES_IN_FLIGHT_MAX + 12 * BODY_BYTES_MAX + 10 * BODY_BYTES_MAX + 32 * MIB
# Batches that were consumed ahead, decoded, and their outputs; for up to five handlers in one process.
HANDLERS_GROWTH_BYTES_MAX = 64 * MIB


@dataclass(frozen=True)
class Sent:
    """A POST and its answer; no status: the connection broke."""

    bulk: Bulk
    status: int | None
    retry_after: str | None
    description: str


@dataclass
class PressedWorld:
    """Whoever sends here has `PAYER`'s name unless told otherwise."""

    running: RunningWorld
    accepted: dict[str, Bulk] = field(default_factory=dict)

    def bulks(self, count: int, *, payer: str = PAYER, payee: str = PAYEE) -> list[Bulk]:
        return [
            build_bulk(payer, payee, items=ITEMS, expires_in_ms=600_000, ilp_data_bytes=ILP_DATA_BYTES)
            for _ in range(count)
        ]

    def flood(self, bulks: Sequence[Bulk], posts: int) -> list[Sent]:
        """`posts` POSTs at most, from `SENDERS` senders that wait a moment and no Retry-After; until all are taken."""
        left = iter(range(posts))
        waiting = list(bulks)
        lock = threading.Lock()
        answers: list[Sent] = []

        def next_bulk() -> Bulk | None:
            with lock:
                return waiting.pop(0) if waiting and next(left, None) is not None else None

        def send() -> None:
            with self._client() as client:
                while (bulk := next_bulk()) is not None:
                    sent = self._post(client, bulk)
                    with lock:
                        answers.append(sent)
                        if sent.status == httpx.codes.ACCEPTED:
                            self.accepted[bulk.bulk_transfer_id] = bulk
                            continue
                        waiting.append(bulk)
                    time.sleep(_IMPATIENCE_S)

        with ThreadPoolExecutor(SENDERS, thread_name_prefix="flood") as executor:
            for sender in [executor.submit(send) for _ in range(min(SENDERS, len(bulks)))]:
                sender.result()
        return answers

    def send_until_taken(self, bulks: Sequence[Bulk]) -> None:
        """As an FSP does: again and again, a moment apart."""
        left = [bulk for bulk in bulks if bulk.bulk_transfer_id not in self.accepted]

        def is_done() -> bool:
            nonlocal left
            with self._client() as client:
                for bulk in left:
                    if self._post(client, bulk).status == httpx.codes.ACCEPTED:
                        self.accepted[bulk.bulk_transfer_id] = bulk
            left = [bulk for bulk in left if bulk.bulk_transfer_id not in self.accepted]
            return not left

        wait_until(is_done, "the acceptance of every bulk", lambda: f"{len(left)} are left")

    def wait_until_ended(self, only: Sequence[str] | None = None) -> None:
        """Until every bulk that was answered 202, or these, have come to the one end that they can have.

        Without `only` also until every callback is delivered; then the books must be right.
        """
        ids = list(self.accepted) if only is None else only
        wait_until(
            lambda: self._states(ids) == {BulkState.COMPLETED: len(ids)},
            "the end of every bulk",
            lambda: f"{dict(self._states(ids))} of {len(ids)}",
        )
        if only is None:
            wait_until(lambda: self._waiting_callbacks() == 0, "the delivery of every callback")
            assert verify_database(self.running.engine).findings == []

    def _states(self, bulk_transfer_ids: Sequence[str]) -> Counter[BulkState]:
        with self.running.engine.connect() as tx:
            rows = bulks_by_id(tx, [id_bytes(bulk_transfer_id) for bulk_transfer_id in bulk_transfer_ids])
        return Counter(row.state for row in rows.values())

    def _waiting_callbacks(self) -> int:
        with self.running.engine.connect() as tx:
            return int(tx.execute(text("SELECT count(*) FROM delivery WHERE state = 'WAITING'")).scalar_one())

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.running.switch_url, timeout=60, trust_env=False)

    def _post(self, client: httpx.Client, bulk: Bulk) -> Sent:
        sent = headers(fspiop_source=bulk.payer_fsp, fspiop_destination=bulk.payee_fsp)
        try:
            answer = client.post("/bulkTransfers", headers=sent, content=bulk.body)
        except httpx.TransportError:
            return Sent(bulk, None, None, "")
        description = answer.json()["errorInformation"]["errorDescription"] if answer.content else ""
        return Sent(bulk, answer.status_code, answer.headers.get("retry-after"), description.removeprefix(_REFUSED))


def require_refusals(answers: Sequence[Sent]) -> Counter[str]:
    """Every POST was taken in or answered with 503 and a Retry-After within its limit; the texts, and how often."""
    refused = [one for one in answers if one.status != httpx.codes.ACCEPTED]
    assert {one.status for one in refused} <= {httpx.codes.SERVICE_UNAVAILABLE}, Counter(one.status for one in refused)
    for one in refused:
        assert one.retry_after is not None
        assert 1 <= int(one.retry_after) <= RETRY_AFTER_S_MAX
    return Counter(one.description for one in refused)


class Memory:
    """The most resident memory of each process from here on, in bytes; looked at many times a second."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        self._pids = pids
        self.first = self._look()
        self.most = dict(self.first)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory")

    @contextmanager
    def watched(self) -> Iterator["Memory"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def require_flat(self) -> None:
        growth = {name: self.most[name] - self.first[name] for name in self.first}
        print({name: f"{bytes_ / MIB:.1f} MiB" for name, bytes_ in growth.items()})
        for name, grown in growth.items():
            most = EDGE_GROWTH_BYTES_MAX if name == "api" else HANDLERS_GROWTH_BYTES_MAX
            assert grown <= most, f"{name} has grown by {grown / MIB:.0f} MiB"

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for name, resident in self._look().items():
                self.most[name] = max(self.most.get(name, 0), resident)

    def _look(self) -> dict[str, int]:
        resident = ((name, resident_bytes(pid)) for name, pid in self._pids().items())
        return {name: bytes_ for name, bytes_ in resident if bytes_ is not None}


def resident_bytes(pid: int) -> int | None:
    """None for a process that has just ended: the supervisor starts it again, and the world then names the new one."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return None
