"""A run, in order:

    1. the services that are asked for, and the switch, in a fresh folder; two FSPs are provisioned and served
    2. warm-up: bulks that count for nothing (connections, caches, plans; a cold JVM costs several times a warm one)
    3. CHECKPOINT, so that neither of the two measurements writes the other's pages; then the measured bulks
    4. proof: FSPs, rows and the object store must agree that every bulk ended as it should, and no process was started
       again
    5. CHECKPOINT, and the database limit, on the same server, while the switch is idle

CPU seconds are those of step 3 alone. Latency is a bulk's, from the begin of its POST to the payer's final callback.
"""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, text

from bench.beneath import standing_on
from bench.cpu import read_cpu, used_between, used_by_application
from bench.database_limit import DatabaseLimit, measure_database_limit
from bench.failure import BenchFailed
from bench.fsps import CURRENCY, PAYEE_FSP, PAYER_FSP, Driven, Fsps, amount_of, running_fsps
from bench.object_proof import faults_in_objects
from bench.proof import Expected, faults_in, rows_per_bulk
from bench.world import RunningWorld, fresh_folder, require_same_processes, running_world
from bulk_api_adapter.admin.provision import provision_fsp
from db.engine import make_engine
from operations.lag import read_dead_letters
from operations.opening import make_object_store, opened_stream
from operations.settings import read_settings
from operations.simulated_fsp import callback_endpoints

# It takes a second or two, and fewer would be over before the machine's other load has evened out.
_LIMIT_BULKS_MIN = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `warm_up` bulks that do not count, then `bulks` of `items` transfers with `in_flight` at a time.

    `parts` is what the switch stands on: table, kafka or real.
    """

    bulks: int
    items: int
    in_flight: int
    warm_up: int
    parts: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it. `load_average` is the machine's before the run: what else ran took its share."""

    plan: Plan
    cpus: int
    load_average: float
    transfers: int
    seconds: float
    transfers_per_second: float
    bulk_p50_ms: float
    bulk_p95_ms: float
    bulk_max_ms: float
    cpu_seconds: Mapping[str, float]
    postgres_cpu_seconds: Mapping[str, float]
    database_limit: DatabaseLimit
    ratio: float

    @property
    def cpu_limit_per_second(self) -> float:
        """What all CPUs could do with nothing else on them: the figure that another load on the machine moves least."""
        return round(self.cpus * self.transfers / sum(self.cpu_seconds.values()), 1)


def measure(plan: Plan, say: Callable[[str], None]) -> Figures:
    """Run the plan; raises BenchFailed. Called on the main thread."""
    load_average = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder())
        say("starting the switch and what it stands on")
        beneath = stack.enter_context(standing_on(plan.parts, folder))
        running = stack.enter_context(running_world(folder, beneath))
        fsps = stack.enter_context(running_fsps(running.world.fspiop_url))
        engine = make_engine(running.database_url, application_name="bench")
        stack.callback(engine.dispose)
        _provision(engine, fsps, plan)
        say(f"warming up with {plan.warm_up} bulks")
        fsps.build(plan.warm_up, plan.items)
        fsps.drive(plan.in_flight)
        _checkpoint(engine)
        driven, cpu, postgres_cpu = _drive(engine, fsps, running, plan, say)
        say("proving that all of it was done right")
        _prove(engine, running, folder / "data", plan)
        rows = rows_per_bulk(engine, plan.bulks + plan.warm_up)
        _checkpoint(engine)
        say("measuring the database limit")
        limit_bulks = max(plan.bulks, _LIMIT_BULKS_MIN)
        limit = measure_database_limit(running.database_url, running.postmaster, limit_bulks, plan.items)
        if limit.rows_per_bulk != rows:
            raise BenchFailed(f"the database limit wrote {limit.rows_per_bulk} rows per bulk, the switch {rows}")
    return _figures(plan, load_average, driven, cpu, postgres_cpu, limit)


def _provision(engine: Engine, fsps: Fsps, plan: Plan) -> None:
    room = (plan.bulks + plan.warm_up) * amount_of(plan.items)
    provision_fsp(engine, PAYER_FSP, CURRENCY, room, room, callback_endpoints(fsps.urls[PAYER_FSP]))
    provision_fsp(engine, PAYEE_FSP, CURRENCY, room, 0, callback_endpoints(fsps.urls[PAYEE_FSP]))


def _drive(
    engine: Engine, fsps: Fsps, running: RunningWorld, plan: Plan, say: Callable[[str], None]
) -> tuple[Driven, dict[str, float], dict[str, float]]:
    """The measured bulks, with CPU seconds per process, and PostgreSQL's per application."""
    fsps.build(plan.bulks, plan.items)
    say(f"measuring {plan.bulks} bulks of {plan.items}, {plan.in_flight} in flight")
    pids = {**running.pids, "simulators": fsps.pid}
    before = read_cpu(pids, running.postmaster)
    driven = fsps.drive(plan.in_flight)
    after = read_cpu(pids, running.postmaster)
    return driven, used_between(before, after), used_by_application(before, after, _applications(engine))


def _applications(engine: Engine) -> dict[int, str]:
    """Whom each of PostgreSQL's backends serves, by pid."""
    with engine.connect() as tx:
        return {row[0]: row[1] for row in tx.execute(text("SELECT pid, application_name FROM pg_stat_activity"))}


def _checkpoint(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))


def _prove(engine: Engine, running: RunningWorld, data_folder: Path, plan: Plan) -> None:
    bulks = plan.bulks + plan.warm_up
    total = bulks * amount_of(plan.items)
    faults = faults_in(engine, Expected(bulks, plan.items, {PAYER_FSP: total, PAYEE_FSP: -total}))
    settings = read_settings(**running.settings)
    faults += faults_in_objects(engine, make_object_store(settings), bulks)
    with opened_stream(settings, engine) as stream:
        faults += [f"{one.records} dead letters on {one.topic}" for one in read_dead_letters(stream)]
    if faults:
        raise BenchFailed("\n".join(["the switch has not done its work right:", *faults]))
    require_same_processes(running, data_folder)


def _figures(
    plan: Plan,
    load_average: float,
    driven: Driven,
    cpu: Mapping[str, float],
    postgres_cpu: Mapping[str, float],
    limit: DatabaseLimit,
) -> Figures:
    transfers = plan.bulks * plan.items
    per_second = transfers / driven.seconds
    return Figures(
        plan=plan,
        cpus=os.cpu_count() or 1,
        load_average=round(load_average, 2),
        transfers=transfers,
        seconds=round(driven.seconds, 3),
        transfers_per_second=round(per_second, 1),
        bulk_p50_ms=round(percentile(driven.latencies_ms, 50)),
        bulk_p95_ms=round(percentile(driven.latencies_ms, 95)),
        bulk_max_ms=round(max(driven.latencies_ms)),
        cpu_seconds=cpu,
        postgres_cpu_seconds=postgres_cpu,
        database_limit=limit,
        ratio=round(per_second / limit.transfers_per_second, 3),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of the others do not exceed, between two of them where it falls between."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
