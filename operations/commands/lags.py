"""`bulk-switch lag`: how far each handler is behind."""

import typer

from operations.commands.database import DataFolder, connected
from operations.lag import read_dead_letters, read_lag
from operations.opening import opened_stream
from operations.printing import AsJson, print_json, print_table

app = typer.Typer()


@app.command()
def lag(data_folder: DataFolder = None, as_json: AsJson = False) -> None:
    """Per topic, partition and handler: the end of the log, the next offset, and the difference."""
    with connected(data_folder) as (settings, engine), opened_stream(settings, engine) as stream:
        with engine.connect() as tx:
            rows = read_lag(tx, stream)
        dead_letters = read_dead_letters(stream)
    if as_json:
        print_json({"partitions": rows, "lag": sum(row.lag for row in rows), "dead_letters": dead_letters})
        return
    print_table(
        "Lag",
        ("handler", "topic", "partition", "end", "next", "lag"),
        ((row.handler, row.topic, row.partition, row.end_offset, row.next_offset, row.lag) for row in rows),
    )
    if dead_letters:
        print_table("Dead letters", ("topic", "records"), ((one.topic, one.records) for one in dead_letters))
