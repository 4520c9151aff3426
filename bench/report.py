"""What a run prints: a table for people, one JSON document for programs."""

from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cpu import POSTGRES
from bench.measurement import Figures

_MICROSECONDS = 1_000_000


def figures_document(figures: Figures) -> dict[str, Any]:
    """The figures by name, flat where a program looks first."""
    plan, limit = figures.plan, figures.database_limit
    return {
        "stream": plan.stream,
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
        "cpu_limit_per_second": figures.cpu_limit_per_second,
        "postgres_cpu_seconds": figures.postgres_cpu_seconds,
        "database_limit_per_second": limit.transfers_per_second,
        "database_limit_transfers": limit.transfers,
        "database_limit_seconds": limit.seconds,
        "database_limit_cpu_seconds": {POSTGRES: limit.postgres_cpu_seconds, "workers": limit.workers_cpu_seconds},
        "rows_per_bulk": limit.rows_per_bulk,
        "ratio": figures.ratio,
    }


def print_figures(figures: Figures, out: Console) -> None:
    plan, limit, transfers = figures.plan, figures.database_limit, figures.transfers
    out.print(
        f"\n[bold]{figures.transfers_per_second:,.0f} transfers per second[/bold], POST to both final callbacks: "
        f"{plan.bulks} bulks of {plan.items:,}, {plan.in_flight} in flight, stream {plan.stream}"
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
