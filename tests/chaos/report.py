"""What a chaos run prints: a table for people, one JSON document for programs."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.run import Outcome


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """The figures by name."""
    plan, verdict = outcome.plan, outcome.verdict
    return {
        "seed": plan.seed,
        "kills": sum(outcome.disturbances.values()),
        "payments": plan.payments,
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "outcomes_missing": verdict.outcomes_missing,
        "outcomes_differing": verdict.outcomes_differing,
        "callbacks_repeated": verdict.callbacks_repeated,
        "positions_equal": verdict.positions_equal,
        "seconds": round(outcome.seconds, 1),
        "states_differing": verdict.states_differing,
        "repeats_unexplained": verdict.repeats_unexplained,
        "committed": plan.committed,
        "undisturbed_seconds": round(outcome.undisturbed_seconds, 1),
        "disturbances": dict(sorted(outcome.disturbances.items())),
        "faults": [*outcome.faults, *verdict.explanations],
    }


def print_outcome(outcome: Outcome, out: Console) -> None:
    document = outcome_document(outcome)
    faults, disturbances = document.pop("faults"), document.pop("disturbances")
    table = Table("of the disturbed run", "", title=f"seed {document.pop('seed')}", title_justify="left")
    table.columns[1].justify = "right"
    for name, value in document.items():
        table.add_row(name.replace("_", " "), str(value) if isinstance(value, bool) else f"{value:,}")
    table.add_section()
    for name, count in disturbances.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    out.print(table)
    for fault in faults:
        out.print(f"[red]✗[/red] {fault}", markup=True, soft_wrap=True)
    if outcome.is_good:
        out.print("Everything ended as it would have ended anyway, and each side was told once.")
