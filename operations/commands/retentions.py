"""`bulk-switch retention`: remove what was kept for long enough."""

from typing import Annotated

import typer

from operations.commands.acting import actor_name
from operations.commands.database import DataFolder, connected
from operations.commands.mistakes import Mistake
from operations.opening import make_object_store, opened_stream
from operations.printing import AsJson, clock, console, print_json, print_table, progress_line
from operations.retention import RetentionReport, RetentionRuns, RetentionTimes, run_retention

app = typer.Typer()


@app.command()
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove callbacks, results, requests and dead letters that are older than the settings say."""
    with (
        connected(data_folder) as (settings, engine),
        opened_stream(settings, engine) as stream,
        progress_line(silent=as_json) as progress,
    ):
        times = RetentionTimes(
            callbacks_kept_days=settings.callbacks_kept_days,
            objects_kept_days=settings.objects_kept_days,
            orphans_kept_days=settings.orphans_kept_days,
            dead_letters_kept_days=settings.dead_letters_kept_days,
        )
        try:
            report = run_retention(
                engine,
                make_object_store(settings),
                stream,
                times,
                actor=actor_name(),
                is_dry_run=dry_run,
                progress=progress,
            )
        except RetentionRuns as runs:
            raise Mistake(str(runs)) from None
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _print_report(report: RetentionReport) -> None:
    objects = report.objects
    print_table(
        "Would be removed" if report.is_dry_run else "Removed",
        ("what", "number", "that ended before (UTC)"),
        (
            ("callbacks with their attempts", report.callbacks, clock(report.callbacks_before)),
            ("results of bulks", report.results, clock(report.objects_before)),
            ("requests", objects["requests"], clock(report.objects_before)),
            ("requests that nothing knows", objects["orphans"], clock(report.orphans_before)),
            ("contents that nothing names", objects["contents"], clock(report.objects_before)),
            ("dead letters", report.dead_letters, None),
        ),
    )
    if report.held_back_by is not None:
        console().print(f"Held back by {report.held_back_by}: what is named there must stay.")
