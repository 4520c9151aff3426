"""`bulk-switch lag`: how far each handler is behind."""

from collections.abc import Iterable, Sequence

import typer

from operations.commands.database import DataFolder, connected
from operations.lag import HandlerLag, PartitionLag, read_dead_letters, read_lag, totals
from operations.opening import opened_stream
from operations.printing import AsJson, duration, print_json, print_table
from stream.opening import TABLE_URL

app = typer.Typer()

_NUMBERS = ("end", "next", "committed", "lag", "oldest", "owner")


@app.command()
def lag(data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """Per partition and handler: end of the log, next offset, what is committed, lag, age of the oldest unread, owner."""
    with connected(data_folder) as (settings, engine), opened_stream(settings, engine) as stream:
        with engine.connect() as tx:
            rows = read_lag(tx, stream)
        dead_letters = read_dead_letters(stream)
    handlers = totals(rows)
    if as_json:
        behind = sum(row.lag for row in rows)
        print_json({"partitions": rows, "handlers": handlers, "lag": behind, "dead_letters": dead_letters})
        return
    # The table stream keeps no copy: what is committed is the progress row itself.
    without_offset = "=" if settings.stream_url == TABLE_URL else "-"
    partitions = (_partition(row, without_offset) for row in rows)
    print_table("Partitions", ("handler/partition", *_NUMBERS), partitions, right=_NUMBERS, narrow=True)
    print_table("Lag", ("handler", "topic", "read", "lag", "oldest"), _lines(handlers), right=_NUMBERS, narrow=True)
    if dead_letters:
        print_table(
            "Dead letters", ("topic", "records"), ((one.topic, one.records) for one in dead_letters), narrow=True
        )


def _partition(row: PartitionLag, without_offset: str) -> Sequence[object]:
    committed = without_offset if row.committed_offset is None else row.committed_offset
    owner = "-" if row.owner is None else row.owner
    age = duration(row.oldest_unread_age_ms)
    return f"{row.handler}/{row.partition}", row.end_offset, row.next_offset, committed, row.lag, age, owner


def _lines(handlers: Iterable[HandlerLag]) -> Iterable[Sequence[object]]:
    for one in handlers:
        read = f"{one.owned} of {one.partitions}"
        yield one.handler, one.topic, read, one.lag, duration(one.oldest_unread_age_ms)
