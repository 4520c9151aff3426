"""Payer and payee in a process of their own: it posts bulks, answers what is forwarded, and measures how long a bulk takes.

The bench tells it over a pipe what to do, one command at a time:

    Build   make the bodies of so many bulks, before the clock starts
    Drive   post them with so many in flight (a new one when a final callback comes), until both sides were told of all
    End

A bulk's time runs from the moment its POST begins to the payer's final callback. Afterwards the FSPs say what was wrong
with what they were told: each side must have got one final callback per bulk, the payee one POST, and the payer's list
must name every transfer of the request, in its order, fulfilled.
"""

import multiprocessing
import queue
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from bench.failure import BenchFailed
from domain.money import parse_amount
from operations.simulated_fsp import Bulk, Receipt, SimulatedPayee, SimulatedPayer, served

PAYER_FSP = "payerfsp"
PAYEE_FSP = "payeefsp"
CURRENCY = "USD"
# Taken in turns, so that positions and bodies are not all alike.
AMOUNTS = ("10", "250.5", "99.99", "1200", "7.0001", "18000")

_BULK_WAIT_S = 60.0
_EXPIRES_IN_MS = 30 * 60 * 1000
_FAULTS_SHOWN = 10
_CONNECTIONS_MAX = 64
_START_WAIT_S = 60.0
_DRIVE_WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Build:
    bulks: int
    items: int


@dataclass(frozen=True, slots=True)
class Drive:
    in_flight: int


@dataclass(frozen=True, slots=True)
class End:
    pass


@dataclass(frozen=True, slots=True)
class Driven:
    """What came of a Drive: from the first POST to the last callback, per bulk, and what was wrong."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def amount_of(items: int) -> int:
    """The sum of a bulk of so many items, in counts of 1/10,000."""
    amounts = [parse_amount(amount) for amount in AMOUNTS]
    return sum(amounts[number % len(amounts)] for number in range(items))


class Fsps:
    """The process, as the bench sees it; `urls` is where each FSP takes callbacks."""

    def __init__(self, pid: int, urls: dict[str, str], pipe: Connection) -> None:
        self.pid = pid
        self.urls = urls
        self._pipe = pipe

    def build(self, bulks: int, items: int) -> None:
        self._ask(Build(bulks, items))

    def drive(self, in_flight: int) -> Driven:
        """Raises BenchFailed when a bulk is not told of in time, or anything that was told is wrong."""
        driven: Driven = self._ask(Drive(in_flight))
        if driven.faults:
            raise BenchFailed("\n".join(["the FSPs were not told what they should have been:", *driven.faults]))
        return driven

    def _ask(self, command: Build | Drive) -> Any:
        try:
            self._pipe.send(command)
            if not self._pipe.poll(_DRIVE_WAIT_S):
                raise BenchFailed(f"the FSPs did not answer {command} in {_DRIVE_WAIT_S:.0f} s")
            return self._pipe.recv()
        except (EOFError, BrokenPipeError):
            raise BenchFailed("the process of the FSPs has ended; its output says why") from None


@contextmanager
def running_fsps(switch_url: str) -> Iterator[Fsps]:
    """The process of the FSPs until the block ends; raises BenchFailed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(switch_url, theirs), name="simulators", daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_START_WAIT_S):
            raise BenchFailed("the FSPs did not start")
        assert process.pid is not None
        yield Fsps(process.pid, ours.recv(), ours)
        ours.send(End())
        process.join(_START_WAIT_S)
    except EOFError:
        raise BenchFailed("the process of the FSPs has ended; its output says why") from None
    finally:
        process.kill()
        process.join()


def _run(switch_url: str, pipe: Connection) -> None:
    """The process."""
    # A Ctrl-C is for the bench, which ends this process in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ExitStack() as stack:
        payer = SimulatedPayer(PAYER_FSP, switch_url, connections_max=_CONNECTIONS_MAX)
        stack.callback(payer.close_client)
        payee = SimulatedPayee(PAYEE_FSP, switch_url)
        pipe.send({one.name: stack.enter_context(served(one)) for one in (payer, payee)})
        bulks: list[Bulk] = []
        while True:
            match pipe.recv():
                case Build(count, items):
                    bulks = [
                        payer.build(
                            PAYEE_FSP, items=items, amount=AMOUNTS, currency=CURRENCY, expires_in_ms=_EXPIRES_IN_MS
                        )
                        for _ in range(count)
                    ]
                    pipe.send(None)
                case Drive(in_flight):
                    pipe.send(_drive(payer, payee, bulks, in_flight))
                case End():
                    return


def _drive(payer: SimulatedPayer, payee: SimulatedPayee, bulks: Sequence[Bulk], in_flight: int) -> Driven:
    waiting: queue.SimpleQueue[Bulk] = queue.SimpleQueue()
    for bulk in bulks:
        waiting.put(bulk)
    latencies_ms: list[float] = []
    began_ms = time.time() * 1000

    def post_one_after_the_other() -> None:
        while True:
            try:
                bulk = waiting.get_nowait()
            except queue.Empty:
                return
            posted_ms = time.time() * 1000
            answer = payer.post(bulk)
            if answer.status != 202:
                raise RuntimeError(f"the switch answered {answer.status}: {answer.body.decode(errors='replace')[:300]}")
            receipt = payer.wait_for(bulk.bulk_transfer_id, 1, _BULK_WAIT_S)[0]
            latencies_ms.append(receipt.received_at_ms - posted_ms)

    try:
        with ThreadPoolExecutor(in_flight) as threads:
            for future in [threads.submit(post_one_after_the_other) for _ in range(in_flight)]:
                future.result()
        last_ms = max(payee.wait_for(bulk.bulk_transfer_id, 2, _BULK_WAIT_S)[-1].received_at_ms for bulk in bulks)
    except Exception as error:  # whatever it is, the bench is told rather than left waiting
        return Driven(faults=[f"{type(error).__name__}: {error}"])
    last_ms = max(last_ms, *(payer.received(bulk.bulk_transfer_id)[-1].received_at_ms for bulk in bulks))
    return Driven((last_ms - began_ms) / 1000, latencies_ms, _faults(payer, payee, bulks)[:_FAULTS_SHOWN])


def _faults(payer: SimulatedPayer, payee: SimulatedPayee, bulks: Sequence[Bulk]) -> list[str]:
    faults = [*payer.violations, *payee.violations]
    for bulk in bulks:
        told_payer = payer.received(bulk.bulk_transfer_id)
        told_payee = payee.received(bulk.bulk_transfer_id)
        callbacks = [one.callback for one in told_payer], [one.callback for one in told_payee]
        if callbacks != (["PUT"], ["POST", "PUT"]):
            faults.append(f"bulk {bulk.bulk_transfer_id}: the payer got {callbacks[0]}, the payee {callbacks[1]}")
            continue
        faults += [
            f"bulk {bulk.bulk_transfer_id}: the final callback to {role} does not list what was paid"
            for role, receipt in (("the payer", told_payer[-1]), ("the payee", told_payee[-1]))
            if not _lists_all(receipt, bulk)
        ]
    return faults


def _lists_all(receipt: Receipt, bulk: Bulk) -> bool:
    body = receipt.json()
    results = body.get("individualTransferResults", ())
    return (
        body.get("bulkTransferState") == "COMPLETED"
        and [result["transferId"] for result in results] == list(bulk.transfer_ids)
        and all("fulfilment" in result for result in results)
    )
