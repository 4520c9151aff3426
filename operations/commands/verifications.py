"""`bulk-switch verify`: the proof that the database is whole."""

from typing import Annotated

import typer

from db.verification.check import FINDINGS_MAX
from operations.commands.database import DataFolder, connected
from operations.commands.mistakes import Mistake
from operations.printing import AsJson, console, print_json, print_table, progress_line
from operations.verification import CHECKS, SETTLED_MS, Verification, verify_database

app = typer.Typer()


@app.command()
def verify(
    settled_ms: Annotated[
        int, typer.Option(min=0, help="What ended less than this ago may still lack its final callback.")
    ] = SETTLED_MS,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Prove that references, histories, positions, limits and callbacks hold; exit status 1 if anything does not."""
    with connected(data_folder) as (_, engine), progress_line(silent=as_json) as progress:
        verification = verify_database(engine, settled_ms=settled_ms, progress=progress)
    if as_json:
        print_json({"is_whole": verification.is_whole, "verification": verification})
    else:
        _print(verification)
    if not verification.is_whole:
        broken = len({finding.check for finding in verification.findings})
        raise Mistake(f"the database is broken: {broken} of {len(CHECKS)} checks do not hold")


def _print(verification: Verification) -> None:
    print_table(
        "Checks",
        ("check", "proves", "holds"),
        ((check.name, check.proves, "yes" if check.name in verification.holding else "NO") for check in CHECKS),
    )
    if verification.findings:
        print_table(
            f"What is broken (up to {FINDINGS_MAX} of each check)",
            ("check", "what", "how"),
            ((one.check, one.subject, one.detail) for one in verification.findings),
        )
    counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in verification.rows.items())
    console().print(f"\nLooked at {counted}, in {verification.duration_ms / 1000:.1f} s.")
