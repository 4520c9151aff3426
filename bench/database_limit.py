"""The database limit: how fast this PostgreSQL takes the rows of whole bulks when nobody thinks in between.

Two workers, each with a connection, a payer and a payee of its own, write bulk after bulk (bench/limit_bulk.py) into a
database of their own on the same server, made by the same migrations. No decision, no read, no codec, no HTTP, no object
store, no topic. What they have written is proved like the switch's own work, and row for row as much.
"""

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from sqlalchemy import Engine, make_url, text

from bench.cpu import POSTGRES, read_cpu, used_between
from bench.failure import BenchFailed
from bench.fsps import CURRENCY, amount_of
from bench.limit_bulk import PROGRESS_ROWS, Pair, make_bulk, write_bulk_rows, write_first_phase, write_second_phase
from bench.proof import Expected, faults_in, rows_per_bulk
from bulk_api_adapter.admin.provision import provision_fsp
from db.accounts import POSITION
from db.deliveries import AttemptOutcome, claim_deliveries, record_outcomes
from db.engine import make_engine
from db.migrate import migrate
from db.progress import load_progress
from domain.delivery import DeliveryState
from operations.simulated_fsp import callback_endpoints

WORKERS = 2
_DATABASE = "bench_limit"
_WAIT_S = 300.0
_NET_DEBIT_CAP = 10**18
_CLAIMS_MAX = 64
_LEASE_MS = 60_000
_URL = "http://127.0.0.1:9/fsp"


@dataclass(frozen=True, slots=True)
class DatabaseLimit:
    transfers: int
    transfers_per_second: float
    seconds: float
    # Of the server alone, and of the two workers.
    postgres_cpu_seconds: float
    workers_cpu_seconds: float
    rows_per_bulk: Mapping[str, float]


def measure_database_limit(server_url: str, postmaster: int, bulks: int, items: int) -> DatabaseLimit:
    """Write `bulks` bulks; raises BenchFailed when what was written is not what it should be."""
    url = _make_database(server_url)
    engine = make_engine(url, application_name="bench")
    try:
        migrate(engine)
        counts = [len(range(number, bulks, WORKERS)) for number in range(WORKERS)]
        pairs = [_provision(engine, number) for number in range(WORKERS)]
        seconds, cpu = _run(url, pairs, counts, items, postmaster)
        positions = {
            name: sign * count * amount_of(items)
            for pair, count in zip(pairs, counts, strict=True)
            for name, sign in ((pair.payer_fsp, 1), (pair.payee_fsp, -1))
        }
        faults = faults_in(engine, Expected(bulks, items, positions))
        if faults:
            raise BenchFailed("\n".join(["the database limit is not what it says:", *faults]))
        return DatabaseLimit(
            transfers=bulks * items,
            transfers_per_second=round(bulks * items / seconds, 1),
            seconds=round(seconds, 3),
            postgres_cpu_seconds=cpu[POSTGRES],
            workers_cpu_seconds=round(sum(cpu.values()) - cpu[POSTGRES], 3),
            rows_per_bulk=rows_per_bulk(engine, bulks),
        )
    finally:
        engine.dispose()


def _make_database(server_url: str) -> str:
    engine = make_engine(server_url, application_name="bench").execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {_DATABASE}"))
    engine.dispose()
    return make_url(server_url).set(database=_DATABASE).render_as_string(hide_password=False)


def _provision(engine: Engine, number: int) -> Pair:
    names = f"payer{number}", f"payee{number}"
    accounts = []
    for name in names:
        details = provision_fsp(engine, name, CURRENCY, _NET_DEBIT_CAP, 0, callback_endpoints(_URL))
        [account] = [one for one in details.accounts if one.ledger_account_type == POSITION]
        accounts.append(account.account_id)
    with engine.begin() as tx:
        for handler, topic in PROGRESS_ROWS:
            load_progress(tx, handler, topic, [number])
    return Pair(number, *names, *accounts)


def _run(url: str, pairs: list[Pair], counts: list[int], items: int, postmaster: int) -> tuple[float, dict[str, float]]:
    """Seconds from the first begin to the last end, and CPU seconds meanwhile."""
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    try:
        for pair, count in zip(pairs, counts, strict=True):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(url, pair, count, items, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        for pipe in pipes:
            _answer(pipe)
        pids = {f"worker-{number}": process.pid for number, process in enumerate(processes) if process.pid is not None}
        before = read_cpu(pids, postmaster)
        for pipe in pipes:
            pipe.send(None)
        times = [_answer(pipe) for pipe in pipes]
        after = read_cpu(pids, postmaster)
        for pipe in pipes:
            pipe.send(None)
        return max(ended for _, ended in times) - min(began for began, _ in times), used_between(before, after)
    finally:
        for process in processes:
            process.join(1.0)
            process.kill()
            process.join()


def _answer(pipe: Connection) -> tuple[float, float]:
    try:
        if not pipe.poll(_WAIT_S):
            raise BenchFailed(f"a worker of the database limit did not answer in {_WAIT_S:.0f} s")
        answer: tuple[float, float] = pipe.recv()
    except EOFError:
        raise BenchFailed("a worker of the database limit has ended; its output says why") from None
    return answer


def _work(url: str, pair: Pair, count: int, items: int, pipe: Connection) -> None:
    """A worker process: make everything, wait for the word, write, say when it began and ended, wait to be let go."""
    engine = make_engine(url, application_name="bench limit", pool_size=1)
    now_ms = time.time_ns() // 1_000_000
    with engine.begin() as tx:
        keys = write_bulk_rows(tx, pair, count, items, now_ms)
    bulks = []
    position = 0
    for bulk_key, bulk_transfer_id in keys:
        bulk = make_bulk(pair, bulk_key, bulk_transfer_id, items, position, now_ms)
        position = bulk.payer_position
        bulks.append(bulk)
    pipe.send((0.0, 0.0))
    pipe.recv()
    began = time.monotonic()
    for number, bulk in enumerate(bulks):
        with engine.begin() as tx:
            write_first_phase(tx, pair, bulk, number)
        _deliver(engine)
        with engine.begin() as tx:
            write_second_phase(tx, pair, bulk, number)
    _deliver(engine)
    pipe.send((began, time.monotonic()))
    pipe.recv()
    engine.dispose()


def _deliver(engine: Engine) -> None:
    """Claim what waits and say that it was delivered, in one transaction: nothing is sent."""
    with engine.begin() as tx:
        claimed = claim_deliveries(
            tx, claims_max=_CLAIMS_MAX, per_fsp_max=_CLAIMS_MAX, in_flight={}, lease_ms=_LEASE_MS
        )
        outcomes = [
            AttemptOutcome(one.delivery_id, one.attempt, one.endpoint, 200, None, 1, DeliveryState.DELIVERED, None)
            for one in claimed.deliveries
        ]
        if outcomes:
            record_outcomes(tx, outcomes)
