"""A small run from end to end: figures that belong together, on one JSON document; and no figure where there is none."""

import io
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from bench.database_limit import DatabaseLimit
from bench.fsps import amount_of
from bench.measurement import Figures, Plan, percentile
from bench.report import figures_document, print_figures

_ROOT = Path(__file__).parents[2]
# Brokers, servers and the whole switch start on few cores, perhaps beside other tests.
_TIMEOUT_S = 500

# More than pytest's own limit, so that a run that takes too long is told as one.
pytestmark = pytest.mark.timeout(_TIMEOUT_S + 20)


def _bench(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=_ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@pytest.mark.process
def test_a_run_returns_its_figures() -> None:
    done = _bench("--bulks", "3", "--items", "50", "--in-flight", "2", "--warm-up", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = orjson.loads(done.stdout)
    assert figures["transfers"] == 150
    assert figures["transfers_per_second"] == pytest.approx(150 / figures["seconds"], rel=0.01)
    assert 0 < figures["bulk_p50_ms"] <= figures["bulk_p95_ms"] <= figures["bulk_max_ms"]
    expected = figures["transfers_per_second"] / figures["database_limit_per_second"]
    assert figures["ratio"] == pytest.approx(expected, abs=0.001)
    groups = {"handlers-1", "handlers-2", "handlers-3", "bulk-processing", "handlers-5"}
    processes = groups | {"api", "admin", "deliverer", "exporter", "supervisor", "simulators", "postgres"}
    assert set(figures["cpu_seconds"]) == processes
    assert figures["rows_per_bulk"]["transfer_state_change"] == 200


@pytest.mark.kafka
@pytest.mark.services
@pytest.mark.process
def test_a_run_on_real_parts_returns_every_parts_share() -> None:
    done = _bench("--real", "--bulks", "2", "--items", "20", "--in-flight", "2", "--warm-up", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = orjson.loads(done.stdout)
    assert (figures["parts"], figures["stream"]) == ("real", "kafka")
    assert {"kafka", "s3", "postgres", "simulators"} < set(figures["cpu_seconds"])
    shares = figures["cpu_share"]
    assert set(shares) == {"edge", "handlers", "deliverer", "postgres", "kafka", "s3", "fsps", "beside"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert figures["rows_per_bulk"]["bulk_transfer_association"] == 20


@pytest.mark.process
def test_a_switch_that_does_not_start_gives_no_figure() -> None:
    done = _bench("--bulks", "2", "--json", BULK_SWITCH_HANDLER_GROUPS="no-such-handler")
    assert done.returncode == 1
    assert "no handler no-such-handler" in done.stderr
    assert done.stdout == ""


def test_percentiles_lie_among_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile([7.0], 95) == 7.0
    assert percentile(values, 50) == pytest.approx(50.5)
    assert 95 <= percentile(values, 95) <= 96


def test_a_bulks_amount_is_the_sum_of_its_items() -> None:
    # 10 + 250.5 + 99.99 + 1200 + 7.0001 + 18000, and 10 again.
    assert amount_of(7) == 195_774_901


def test_the_table_shows_every_process() -> None:
    limit = DatabaseLimit(30_000, 30_000.0, 1.0, 0.5, 0.1, {"transfer": 1000.0})
    plan = Plan(bulks=2, items=1000, in_flight=1, warm_up=1, parts="table")
    cpu = {"api": 0.02, "postgres": 0.2}
    figures = Figures(plan, 2, 0.1, 2000, 0.5, 4000.0, 180, 200, 210, cpu, {"api": 0.2}, limit, 0.133)
    out = Console(file=io.StringIO(), record=True, width=150)
    print_figures(figures, out)
    shown = out.export_text()
    assert "4,000 transfers per second" in shown
    for name in ("api", "postgres", "for api", "all"):
        assert f" {name} " in shown
    document = figures_document(figures)
    assert document["cpu_microseconds_per_transfer"] == {"api": 10.0, "postgres": 100.0}
    # Two CPUs, 110 µs a transfer.
    assert document["cpu_limit_per_second"] == pytest.approx(18_181.8)
