"""What a run prints: a table for people, one JSON document for programs."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.beneath import KAFKA, REAL, S3, TABLE
from bench.cpu import POSTGRES
from bench.measurement import Figures

_MICROSECONDS = 1_000_000
_STANDS_ON = {
    TABLE: "PostgreSQL alone",
    KAFKA: "Kafka and PostgreSQL",
    REAL: "Kafka, PostgreSQL and S3",
}
# Whose share a process's is; what is not named here runs handlers.
_PART_OF = {
    "api": "edge",
    "admin": "beside",
    "supervisor": "beside",
    "exporter": "beside",
    "deliverer": "deliverer",
    "simulators": "fsps",
    POSTGRES: POSTGRES,
    KAFKA: KAFKA,
    S3: S3,
}


def figures_document(figures: Figures) -> dict[str, Any]:
    """The figures by name, flat where a program looks first."""
    plan, limit = figures.plan, figures.database_limit
    return {
        "parts": plan.parts,
        "stream": KAFKA if plan.parts == REAL else plan.parts,
        "bulks": plan.bulks,
        "items": plan.items,
        "in_flight": plan.in_flight,
        "warm_up_bulks": plan.warm_up,
        "cpus": figures.cpus,
        "load_average": figures.load_average,
        "transfers": figures.transfers,
        "seconds": figures.seconds,
        "transfers_per_second": figures.transfers_per_second,
        "bulk_p50_ms": figures.bulk_p50_ms,
        "bulk_p95_ms": figures.bulk_p95_ms,
        "bulk_max_ms": figures.bulk_max_ms,
        "cpu_seconds": figures.cpu_seconds,
        "cpu_microseconds_per_transfer": {
            name: _per_transfer(seconds, figures.transfers) for name, seconds in figures.cpu_seconds.items()
        },
        "cpu_share": cpu_share(figures.cpu_seconds),
        "cpu_limit_per_second": figures.cpu_limit_per_second,
        "postgres_cpu_seconds": figures.postgres_cpu_seconds,
        "database_limit_per_second": limit.transfers_per_second,
        "database_limit_transfers": limit.transfers,
        "database_limit_seconds": limit.seconds,
        "database_limit_cpu_seconds": {POSTGRES: limit.postgres_cpu_seconds, "workers": limit.workers_cpu_seconds},
        "rows_per_bulk": limit.rows_per_bulk,
        "ratio": figures.ratio,
    }


def cpu_share(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of all CPU seconds, the largest first."""
    parts: dict[str, float] = {}
    for process, used in seconds.items():
        part = _PART_OF.get(process, "handlers")
        parts[part] = parts.get(part, 0.0) + used
    total = sum(parts.values())
    return {part: round(used / total, 3) for part, used in sorted(parts.items(), key=lambda pair: -pair[1])}


def print_figures(figures: Figures, out: Console) -> None:
    plan, limit, transfers = figures.plan, figures.database_limit, figures.transfers
    out.print(
        f"\n[bold]{figures.transfers_per_second:,.0f} transfers per second[/bold], POST to both final callbacks: "
        f"{plan.bulks} bulks of {plan.items:,}, {plan.in_flight} in flight, on {_STANDS_ON[plan.parts]}"
    )
    out.print(
        f"a bulk took {figures.bulk_p50_ms:,.0f} ms (median), {figures.bulk_p95_ms:,.0f} ms (95 of 100), "
        f"{figures.bulk_max_ms:,.0f} ms (longest)"
    )
    out.print(
        f"the database limit is {limit.transfers_per_second:,.0f} transfers per second; the switch reaches "
        f"[bold]{figures.ratio:.3f}[/bold] of it"
    )
    out.print(
        f"by its CPU seconds alone, with all {figures.cpus} CPUs to itself, it could do "
        f"{figures.cpu_limit_per_second:,.0f} transfers per second"
    )
    out.print(
        f"{figures.cpus} CPUs, load average {figures.load_average} before; every bulk COMPLETED, positions exact, one "
        "final callback per side and bulk\n"
    )
    shares = ", ".join(f"{part} {share:.0%}" for part, share in cpu_share(figures.cpu_seconds).items())
    out.print(f"CPU by part: {shares}\n")
    table = Table("process", "CPU seconds", "CPU µs per transfer")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, seconds in sorted(figures.cpu_seconds.items(), key=lambda pair: -pair[1]):
        table.add_row(name, f"{seconds:.2f}", f"{_per_transfer(seconds, transfers):.1f}")
        if name == POSTGRES:
            for application, part in figures.postgres_cpu_seconds.items():
                table.add_row(
                    f"  for {application}", f"{part:.2f}", f"{_per_transfer(part, transfers):.1f}", style="dim"
                )
    total = sum(figures.cpu_seconds.values())
    table.add_section()
    table.add_row("all", f"{total:.2f}", f"{_per_transfer(total, transfers):.1f}")
    table.add_row(
        "database limit: postgres",
        f"{limit.postgres_cpu_seconds:.2f}",
        f"{_per_transfer(limit.postgres_cpu_seconds, limit.transfers):.1f}",
        style="dim",
    )
    out.print(table)


def _per_transfer(seconds: float, transfers: int) -> float:
    return round(seconds * _MICROSECONDS / transfers, 2)
