"""`bulk-switch topics`: are the topics as the catalogue and the settings say, and make them so."""

from typing import Annotated

import typer

from operations.commands.database import DataFolder, connected
from operations.commands.mistakes import Mistake
from operations.opening import opened_stream
from operations.printing import AsJson, print_json, print_table
from operations.settings import Settings
from operations.topics import Drift, apply_topics, find_drift, wanted_topics
from stream.interface import Stream

app = typer.Typer()


@app.command()
def topics(
    data_folder: DataFolder = None,
    apply: Annotated[bool, typer.Option("--apply", help="Make, extend and set what loses nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what differs (the default).")] = False,
    as_json: AsJson = False,
) -> None:
    """Topics that are missing or not as they should be; exit status 1 when any is (with --apply: still is)."""
    if apply and dry_run:
        raise Mistake("--apply or --dry-run, not both")
    with connected(data_folder) as (settings, engine), opened_stream(settings, engine) as stream:
        drift, left = _compare(settings, stream, apply=apply)
        found = list(stream.topics().values())
    if as_json:
        print_json({"topics": found, "drift": drift, "left": left})
    else:
        _print(drift, left, apply=apply)
    if left:
        raise typer.Exit(1)


def _compare(settings: Settings, stream: Stream, *, apply: bool) -> tuple[list[Drift], list[Drift]]:
    """What was not as it should be, and what still is not."""
    wanted = wanted_topics(settings)
    found = stream.topics()
    drift = find_drift(wanted, found)
    if not apply or not drift:
        return drift, drift
    apply_topics(stream, wanted, found, drift)
    return drift, find_drift(wanted, stream.topics())


def _print(drift: list[Drift], left: list[Drift], *, apply: bool) -> None:
    if not drift:
        typer.echo("Every topic is as it should be.")
        return
    columns = ("topic", "what", "is", "should be", "done" if apply else "--apply would")
    print_table(
        "Topics",
        columns,
        (
            (
                one.topic,
                one.what,
                one.is_now,
                one.should_be,
                ("not done; " if apply and one in left else "") + one.remedy,
            )
            for one in drift
        ),
    )
    if not apply:
        typer.echo("Nothing was changed; --apply does what can be done.")
    elif left:
        typer.echo(f"{len(left)} of {len(drift)} are left.")
    else:
        typer.echo("Now every topic is as it should be.")
