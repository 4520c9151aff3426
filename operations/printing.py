"""How commands answer: tables and plain lines for people, with `--json` one JSON document for programs."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

# Output that goes into a file or a pipe is not cut to the 80 columns of an old terminal.
_PLAIN_WIDTH = 150

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def console() -> Console:
    """The console of standard output as it is now: tests and pipes replace it."""
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)


def print_json(document: Any) -> None:
    """Dataclasses, ids and instants included; instants in UTC."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(document, option=options).decode() + "\n")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
    narrow: bool = False,
) -> None:
    """Columns whose values are all numbers, and those named in `right`, are aligned to the right.

    `narrow` leaves out the frame, for tables of many columns in a terminal of 80.
    """
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1)) if narrow else Table()
    for number, column in enumerate(columns):
        values = [row[number] for row in cells]
        numeric = column in right or (bool(values) and all(_is_number(value) for value in values))
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    out = console()
    out.print(f"\n[bold]{title}[/bold]")
    out.print(table)


def duration(milliseconds: int | None) -> str:
    """How long something has been going on, in the largest unit that still says it; "-" for nothing."""
    if milliseconds is None:
        return "-"
    seconds = milliseconds / 1000
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.1f} s"


def clock(instant: datetime | None) -> str:
    """An instant as people compare them: UTC, to the millisecond."""
    if instant is None:
        return ""
    return instant.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


@contextmanager
def progress_line(*, silent: bool) -> Iterator[Callable[[str], None]]:
    """Shows how far a long work is: one line of a terminal, written over; nothing where nobody watches."""
    if silent or not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True).status("") as status:
        yield status.update


def _is_number(value: str) -> bool:
    return value.lstrip("-").replace(".", "", 1).isdigit()
