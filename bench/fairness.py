"""How long a single transfer takes while bulks are queued without end (BULK-132, BULK-133): `scripts/bench fairness`.

    1. the switch in a fresh folder; payer and payee of the bulks in a process of their own, those of the single
       transfers in this one. All share one payee, so they share its account and its callbacks' slots
    2. idle: single transfers of `otherfsp`, one after the other
    3. busy: so many bulks in flight that they queue, beside them in turns a single transfer of another payer and one of
       the same payer, and bulks of one item of the other payer: what a transfer takes that waits in the bulks' topics
    4. proof: every single transfer and small bulk was committed

Times run from the begin of a POST to the payer's final callback. Exit status 0 with figures, 1 without.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from bench.beneath import standing_on
from bench.failure import BenchFailed
from bench.fsps import CURRENCY, PAYEE_FSP, PAYER_FSP, Driven, Fsps, running_fsps
from bench.measurement import percentile
from bench.world import RunningWorld, fresh_folder, running_world
from bulk_api_adapter.admin.provision import provision_fsp
from db.engine import make_engine
from domain.money import UNITS
from operations.printing import AsJson, console, print_json
from operations.simulated_fsp import (
    SimulatedPayee,
    SimulatedPayer,
    callback_endpoints,
    served,
    transfer_endpoints,
)

OTHER_FSP = "otherfsp"
ITEMS = 1_000

_WAIT_S = 60.0
_PAUSE_S = 0.02
_WARM_UP_BULKS = 8
_WARM_UP_TRANSFERS = 20
_FUNDS = 1_000_000_000 * UNITS


@dataclass(frozen=True, slots=True)
class Times:
    """How long one kind took; `of` says which."""

    of: str
    count: int
    p50_ms: int
    p95_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True)
class Fairness:
    stream: str
    bulks: int
    in_flight: int
    bulk_p50_ms: int
    transfers_per_second: float
    times: list[Times]


@dataclass(frozen=True, slots=True)
class _Parties:
    """Those of the single transfers: callbacks of both payers and of the payee come to this process."""

    same_payer: SimulatedPayer
    other_payer: SimulatedPayer
    payee: SimulatedPayee


def measure_fairness(stream: str, bulks: int, in_flight: int, idle: int, say: Callable[[str], None]) -> Fairness:
    """Run it; raises BenchFailed. Called on the main thread."""
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder())
        say("starting the switch and what it stands on")
        beneath = stack.enter_context(standing_on(stream, folder))
        running = stack.enter_context(running_world(folder, beneath))
        fsps = stack.enter_context(running_fsps(running.world.fspiop_url))
        parties = _serve_parties(stack, running, fsps)
        say("warming up")
        fsps.build(_WARM_UP_BULKS, ITEMS)
        fsps.drive(_WARM_UP_BULKS)
        for _ in range(_WARM_UP_TRANSFERS):
            _transfer_ms(parties.other_payer)
        say(f"idle: {idle} single transfers")
        times = [_times("idle", [_transfer_ms(parties.other_payer) for _ in range(idle)])]
        fsps.build(bulks, ITEMS)
        say(f"busy: {bulks} bulks of {ITEMS:,}, {in_flight} in flight")
        driven, busy = _busy(fsps, parties, in_flight)
    return Fairness(
        stream,
        bulks,
        in_flight,
        round(percentile(driven.latencies_ms, 50)),
        round(bulks * ITEMS / driven.seconds, 1),
        times + busy,
    )


def _serve_parties(stack: ExitStack, running: RunningWorld, fsps: Fsps) -> _Parties:
    url = running.world.fspiop_url
    parties = _Parties(SimulatedPayer(PAYER_FSP, url), SimulatedPayer(OTHER_FSP, url), SimulatedPayee(PAYEE_FSP, url))
    stack.callback(parties.same_payer.close_client)
    stack.callback(parties.other_payer.close_client)
    same, other, payee = (
        stack.enter_context(served(one)) for one in (parties.same_payer, parties.other_payer, parties.payee)
    )
    engine = make_engine(running.database_url, application_name="bench")
    stack.callback(engine.dispose)
    _provision(engine, PAYER_FSP, callback_endpoints(fsps.urls[PAYER_FSP]) | transfer_endpoints(same))
    _provision(engine, PAYEE_FSP, callback_endpoints(fsps.urls[PAYEE_FSP]) | transfer_endpoints(payee))
    _provision(engine, OTHER_FSP, callback_endpoints(other))
    return parties


def _provision(engine: Engine, name: str, endpoints: dict[str, str]) -> None:
    provision_fsp(engine, name, CURRENCY, _FUNDS, _FUNDS, endpoints)


def _busy(fsps: Fsps, parties: _Parties, in_flight: int) -> tuple[Driven, list[Times]]:
    """Single transfers of both payers in turns, and one-item bulks beside, for as long as the bulks queue."""
    other: list[float] = []
    same: list[float] = []
    with ThreadPoolExecutor(2) as threads:
        bulks = threads.submit(fsps.drive, in_flight)
        # One of these takes as long as the queue, and must not keep the others from being measured.
        small = threads.submit(_small_bulks_ms, parties.other_payer, bulks)
        # The first bulks are still being posted: what is measured is a queue that is there already.
        time.sleep(1.0)
        while not bulks.done():
            other.append(_transfer_ms(parties.other_payer))
            same.append(_transfer_ms(parties.same_payer))
            time.sleep(_PAUSE_S)
        driven, queued = bulks.result(), small.result()
    if not queued or not same:
        raise BenchFailed("the bulks were over before anything was measured: more of them, or more in flight")
    return driven, [
        _times("busy, another payer", other),
        _times("busy, the same payer", same),
        _times("busy, a bulk of one item of another payer", queued),
    ]


def _small_bulks_ms(payer: SimulatedPayer, bulks: "Future[Driven]") -> list[float]:
    times = []
    while not bulks.done():
        times.append(_small_bulk_ms(payer))
    return times


def _transfer_ms(payer: SimulatedPayer) -> float:
    transfer = payer.build_transfer(PAYEE_FSP, amount="1", currency=CURRENCY)
    posted_ms = time.time() * 1000
    answer = payer.post_transfer(transfer)
    if answer.status != 202:
        raise BenchFailed(f"the switch answered {answer.status}: {answer.body.decode(errors='replace')[:300]}")
    receipt = payer.wait_for(transfer.transfer_id, 1, _WAIT_S)[0]
    if receipt.callback != "PUT" or receipt.json().get("transferState") != "COMMITTED":
        raise BenchFailed(f"transfer {transfer.transfer_id} was not committed: {receipt.body[:300]!r}")
    return receipt.received_at_ms - posted_ms


def _small_bulk_ms(payer: SimulatedPayer) -> float:
    bulk = payer.build(PAYEE_FSP, items=1, currency=CURRENCY)
    posted_ms = time.time() * 1000
    answer = payer.post(bulk)
    if answer.status != 202:
        raise BenchFailed(f"the switch answered {answer.status}: {answer.body.decode(errors='replace')[:300]}")
    receipt = payer.wait_for(bulk.bulk_transfer_id, 1, _WAIT_S)[0]
    results = receipt.json().get("individualTransferResults", [])
    if receipt.callback != "PUT" or len(results) != 1 or "fulfilment" not in results[0]:
        raise BenchFailed(f"bulk {bulk.bulk_transfer_id} was not committed: {receipt.body[:300]!r}")
    return receipt.received_at_ms - posted_ms


def _times(of: str, values: list[float]) -> Times:
    return Times(of, len(values), round(percentile(values, 50)), round(percentile(values, 95)), round(max(values)))


def _print(fairness: Fairness, out: Console) -> None:
    out.print(
        f"\n{fairness.bulks} bulks of {ITEMS:,}, {fairness.in_flight} in flight, stream {fairness.stream}: "
        f"{fairness.transfers_per_second:,.0f} transfers per second, a bulk took {fairness.bulk_p50_ms:,} ms (median)"
    )
    table = Table("from POST to the payer's callback", "count", "median ms", "95 % ms", "longest ms", box=None)
    for times in fairness.times:
        table.add_row(times.of, *(f"{value:,}" for value in (times.count, times.p50_ms, times.p95_ms, times.max_ms)))
    out.print(table)


def main(
    bulks: Annotated[int, typer.Option(min=4, max=500, help="Bulks of 1,000 beside which is measured.")] = 120,
    in_flight: Annotated[int, typer.Option(min=1, max=64, help="Bulks at a time: so many that they queue.")] = 24,
    idle: Annotated[int, typer.Option(min=5, max=10_000, help="Single transfers measured on an idle switch.")] = 100,
    stream: Annotated[str, typer.Option(help="Where topics live: table, or kafka, which starts a broker.")] = "table",
    as_json: AsJson = False,
) -> None:
    """How long a single transfer takes, idle and while bulks of 1,000 queue, of another payer and of the same."""
    if stream not in {"table", "kafka"}:
        raise typer.BadParameter(f"{stream} is neither table nor kafka")
    progress = Console(stderr=True, highlight=False)
    try:
        fairness = measure_fairness(stream, bulks, in_flight, idle, lambda line: progress.print(line, style="dim"))
    except BenchFailed as failure:
        progress.print(f"bench: {failure}", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        print_json(asdict(fairness))
    else:
        _print(fairness, console())


if __name__ == "__main__":
    typer.run(main)
