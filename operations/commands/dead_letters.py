"""`bulk-switch dead-letters`: what handlers could not work on: listed, read in full, sent again."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from operations.commands.acting import actor_name
from operations.commands.database import DataFolder, connected
from operations.commands.mistakes import Mistake
from operations.dead_letters import FoundLetter, NoSuchDeadLetters, read_letter, read_letters, send_again
from operations.opening import opened_stream
from operations.printing import AsJson, console, print_json, print_table

dead_letters = typer.Typer(help="Messages that a handler could not work on.", no_args_is_help=True)
app = typer.Typer()
app.add_typer(dead_letters, name="dead-letters")

_ROWS_MAX = 1_000

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The dead-letter topic, or the topic it belongs to.")]
Partition = Annotated[int, typer.Option(min=0, help="The partition that the dead letter stands in.")]
RowsMax = Annotated[int, typer.Option(min=1, max=100_000, help="So many of a topic at most, the oldest.")]


@dead_letters.command("list")
def list_(
    topic: Annotated[str | None, typer.Option(help="Only those of this topic.")] = None,
    rows_max: RowsMax = _ROWS_MAX,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Dead letters, oldest first by topic, with what they are about and why."""
    try:
        with connected(data_folder) as (settings, engine), opened_stream(settings, engine) as stream:
            found = read_letters(stream, topic, rows_max)
    except NoSuchDeadLetters as missing:
        raise Mistake(str(missing)) from None
    if as_json:
        print_json([_facts(one) for one in found])
        return
    now = datetime.now(UTC)
    print_table(
        "Dead letters",
        ("topic", "partition", "offset", "age", "handler", "about", "reason"),
        (
            (one.topic, one.partition, one.offset, _age(now, one.at), one.letter and one.letter.handler, *_about(one))
            for one in found
        ),
    )


@dead_letters.command()
def show(
    topic: Topic,
    offset: Annotated[int, typer.Argument(metavar="OFFSET")],
    partition: Partition = 0,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """One dead letter in full: where it came from, why it is here, and its message."""
    try:
        with connected(data_folder) as (settings, engine), opened_stream(settings, engine) as stream:
            found = read_letter(stream, topic, partition, offset)
    except NoSuchDeadLetters as missing:
        raise Mistake(str(missing)) from None
    facts = _facts(found)
    if as_json:
        print_json(facts)
        return
    content = facts.pop("content")
    print_table(f"{found.topic}/{found.partition}/{found.offset}", ("what", "is"), facts.items())
    console().print("\n[bold]Message[/bold]")
    print_json(content)


@dead_letters.command("send-again")
def send_again_(
    topic: Topic,
    offset: Annotated[int | None, typer.Argument(metavar="[OFFSET]", help="Not given: --all is asked for.")] = None,
    partition: Partition = 0,
    everything: Annotated[bool, typer.Option("--all", help="All of the topic, as many as --rows-max.")] = False,
    rows_max: RowsMax = _ROWS_MAX,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Put a dead letter, or all of a topic, on its source topic again; states decide what comes of it."""
    if (offset is None) != everything:
        raise Mistake("give either an OFFSET or --all")
    try:
        with connected(data_folder) as (settings, engine), opened_stream(settings, engine) as stream:
            if offset is None:
                found = read_letters(stream, topic, rows_max)
            else:
                found = [read_letter(stream, topic, partition, offset)]
            if found and not dry_run:
                if not yes:
                    typer.confirm(f"Send {len(found)} of {found[0].topic} again?", abort=True, err=True)
                send_again(engine, stream, found, actor=actor_name())
    except NoSuchDeadLetters as missing:
        raise Mistake(str(missing)) from None
    places = [f"{one.topic}/{one.partition}/{one.offset}" for one in found]
    if as_json:
        print_json({"sent": [] if dry_run else places, "would_be_sent": places if dry_run else []})
    else:
        print_table("Would be sent again" if dry_run else "Sent again", ("dead letter",), ((one,) for one in places))


def _facts(found: FoundLetter) -> dict[str, Any]:
    letter = found.letter
    facts: dict[str, Any] = {"topic": found.topic, "partition": found.partition, "offset": found.offset, "at": found.at}
    if letter is not None:
        facts |= {
            "handler": letter.handler,
            "reason": letter.reason,
            "source_topic": letter.topic,
            "source_partition": letter.partition,
            "source_offset": letter.offset,
            "key_hex": letter.key.hex(),
        }
    return {**facts, "content": found.content()}


def _about(found: FoundLetter) -> tuple[str, str]:
    content = found.content()
    ids = [*content.ids("bulk_transfer_id"), *content.ids("transfer_id")]
    reason = found.unreadable if found.letter is None else found.letter.reason
    return ", ".join(ids) or "?", reason or ""


def _age(now: datetime, at: datetime) -> str:
    minutes = int((now - at).total_seconds() // 60)
    days, hours = minutes // (24 * 60), minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"
