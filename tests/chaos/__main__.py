"""`python -m tests.chaos`, or `scripts/chaos`: kill the processes of a switch at random, and prove that nothing is lost.

    plan         what a seed means: payments, what becomes of them, what is done to whom and when
    parts        Kafka, PostgreSQL and S3, real, in a folder of the run's own
    processes    the switch's processes, each of which can be killed, held and replaced
    world        a switch on these parts, with both FSPs in this process
    load         the payers' side: posts until taken
    killer       does what the plan says to the processes and parts
    run          one run of a plan, and two of them against each other
    books        what a run has come to
    comparison   two books against each other
    report       the table, and the JSON document
    newer_release  the switch as of a release with a further schema version, for the test of an upgrade

Exit status 0 when the disturbed run came to what the undisturbed one of the same seed came to; 1 when it did not, or could
not be made; 130 when somebody ended it. Progress goes to standard error, so that `--json` leaves one document on standard
output. What a seed decides is in plan; what processes make of it in which microsecond nobody decides.
"""

import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.services import ServiceError
from operations.printing import AsJson, console, print_json
from tests.chaos.parts import running_parts
from tests.chaos.plan import PAYMENTS_MAX, Kind, Plan, make_plan
from tests.chaos.report import outcome_document, print_outcome
from tests.chaos.run import IN_FLIGHT_MAX, Outcome, run_chaos
from tests.chaos.run import Progress as Told

_INTERRUPTED_STATUS = 130
_KILLS_MAX = 10_000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seed: Annotated[int | None, typer.Option(help="What is random follows from it.  [default: drawn and told]")] = None,
    kills: Annotated[int, typer.Option(min=0, max=_KILLS_MAX, help="Disturbances, of all kinds together.")] = 20,
    payments: Annotated[
        int, typer.Option(min=1, max=PAYMENTS_MAX, help="Items of bulks and single transfers.")
    ] = 10_000,
    kafka_nodes: Annotated[int, typer.Option(min=1, max=3, help="1, or 3 of which one at a time goes away.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=4, help="Of each handler and of the deliverer.")] = 2,
    batch_items: Annotated[int, typer.Option(min=1, help="Small batches cross more transactions to die in.")] = 1_000,
    in_flight: Annotated[int, typer.Option(min=1, help="Payments under way at a time.")] = IN_FLIGHT_MAX,
    silent_expires: Annotated[int, typer.Option(min=5, help="Seconds to the end of what is never answered.")] = 60,
    only: Annotated[list[Kind] | None, typer.Option(help="Disturb in this way alone; may be said often.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Leave data and logs in this new folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Post payments while processes are killed at random, and compare with the undisturbed run of the same seed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    kinds = tuple(only or Kind)
    drawn = random.SystemRandom().randrange(10**6) if seed is None else seed
    plan = make_plan(drawn, payments, kills, silent_expires_in_ms=silent_expires * 1_000, kinds=kinds)
    try:
        with _folder(keep) as folder, _progress(plan) as told:
            told.say(f"seed {drawn}: starting Kafka, PostgreSQL and S3")
            with running_parts(folder, kafka_nodes) as parts:
                outcome = run_chaos(
                    parts,
                    folder,
                    plan,
                    told,
                    in_flight_max=in_flight,
                    workers=workers,
                    settings={"batch_items": batch_items},
                )
    except (ServiceError, AssertionError) as failure:
        sys.stderr.write(f"chaos: seed {drawn}: {failure}\n")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED_STATUS) from None
    _print(outcome, as_json=as_json)
    raise typer.Exit(0 if outcome.is_good else 1)


def _print(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome_document(outcome))
    else:
        print_outcome(outcome, console())


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="bulk-switch-chaos-"))
    # PostgreSQL, which as root runs as a user of its own, has to pass.
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _progress(plan: Plan) -> Iterator[Told]:
    """A line that moves on a terminal; lines one after the other, without control codes, elsewhere."""
    screen = Console(stderr=True, highlight=False)
    if not screen.is_terminal:
        yield Told(say=lambda line: screen.print(line))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task("", total=len(plan.waves))
        yield Told(
            say=lambda line: progress.update(task, description=line),
            advance=lambda number: progress.update(task, completed=number),
        )


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
