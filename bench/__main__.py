"""`python -m bench`, or `scripts/bench`: a run, and what came of it.

Exit status 0 with figures; 1 without, when the switch did not do its work right or could not be started; 130 when somebody
ended it. Progress goes to standard error, so that `--json` leaves one document on standard output.
"""

import enum
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from bench.beneath import KAFKA, REAL, TABLE
from bench.failure import BenchFailed
from bench.measurement import Plan, measure
from bench.report import figures_document, print_figures
from operations.printing import AsJson, console, print_json

_INTERRUPTED_STATUS = 130
# The FSPs remember every body until the end of the run, to prove what was said.
_BULKS_MAX = 500
# A cold JVM costs several times a warm one.
_WARM_UP_BULKS = {TABLE: 8, KAFKA: 24, REAL: 24}


class _Stream(enum.StrEnum):
    TABLE = TABLE
    KAFKA = KAFKA


def main(
    bulks: Annotated[int, typer.Option(min=2, max=_BULKS_MAX, help="Bulks that are measured.")] = 40,
    items: Annotated[int, typer.Option(min=1, max=1_000, help="Transfers in each.")] = 1_000,
    in_flight: Annotated[int, typer.Option(min=1, max=64, help="Bulks at a time: busy, but not queueing.")] = 8,
    stream: Annotated[_Stream, typer.Option(help="Where topics live; kafka starts a broker.")] = _Stream.TABLE,
    real: Annotated[bool, typer.Option("--real", help="On Kafka, PostgreSQL and S3 of the run's own.")] = False,
    warm_up: Annotated[int | None, typer.Option(min=1, max=100, help="Bulks before.  [default: 8, kafka 24]")] = None,
    as_json: AsJson = False,
) -> None:
    """Drive whole bulks through the switch: transfers per second, latency, CPU, and the database limit beside it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    parts = REAL if real else stream.value
    plan = Plan(bulks, items, in_flight, _WARM_UP_BULKS[parts] if warm_up is None else warm_up, parts)
    progress = Console(stderr=True, highlight=False)
    try:
        figures = measure(plan, lambda line: progress.print(line, style="dim"))
    except BenchFailed as failure:
        sys.stderr.write(f"bench: {failure}\n")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED_STATUS) from None
    if as_json:
        print_json(figures_document(figures))
    else:
        print_figures(figures, console())


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
