"""`bulk-switch bulk`: what became of a bulk."""

from typing import Annotated

import typer

from operations.bulk_story import BulkStory, Callback, read_bulk_story
from operations.commands.database import DataFolder, bulk_transfer_id_of, connected, transfer_id_of
from operations.commands.mistakes import Mistake
from operations.commands.whys import RecordsMax, tell_why
from operations.message_search import RECORDS_MAX
from operations.printing import AsJson, clock, console, print_json, print_table
from operations.why import why_bulk, why_item

bulk = typer.Typer(help="Look at bulks.", no_args_is_help=True)
app = typer.Typer()
app.add_typer(bulk, name="bulk")


@bulk.command()
def show(
    bulk_transfer_id: Annotated[str, typer.Argument(metavar="ID", help="The bulkTransferId.")],
    items: Annotated[bool, typer.Option("--items", help="Every item, not only how many are in each state.")] = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """A bulk's states, its items, its callbacks and their times."""
    wanted = bulk_transfer_id_of(bulk_transfer_id)
    with connected(data_folder) as (_, engine), engine.connect() as tx:
        story = read_bulk_story(tx, wanted)
    if story is None:
        raise Mistake(f"no bulk {wanted} (if its POST was answered with 202, bulk-prepare has not read it yet)")
    if as_json:
        print_json(story)
        return
    print_story(story)
    if items:
        print_table(
            "Items in the order of the request",
            ("item", "transferId", "amount", "currency", "state", "error"),
            (
                (one.number, one.transfer_id, one.amount, one.currency, one.state, one.error_description)
                for one in story.items
            ),
        )


@bulk.command()
def why(
    bulk_transfer_id: Annotated[str, typer.Argument(metavar="ID", help="The bulkTransferId.")],
    transfer_id: Annotated[str | None, typer.Argument(metavar="[TRANSFER]", help="The transferId of one item.")] = None,
    records_max: RecordsMax = RECORDS_MAX,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Everything that happened to a bulk, or to one transfer of it, and what it waits for or why it ended."""
    wanted = bulk_transfer_id_of(bulk_transfer_id)
    if transfer_id is None:
        tell_why(
            lambda tx: why_bulk(tx, wanted),
            f"no bulk {wanted} (if its POST was answered with 202, bulk-prepare has not read it yet)",
            data_folder=data_folder,
            records_max=records_max,
            as_json=as_json,
        )
        return
    item = transfer_id_of(transfer_id)
    tell_why(
        lambda tx: why_item(tx, wanted, item),
        f"no transfer {item} in bulk {wanted}",
        data_folder=data_folder,
        records_max=records_max,
        as_json=as_json,
    )


def print_story(story: BulkStory) -> None:
    """The tables of a bulk."""
    console().print(
        f"[bold]Bulk {story.bulk_transfer_id}[/bold]: {story.payer_fsp} pays {story.item_count} items "
        f"to {story.payee_fsp or '?'}; {story.state} (FSPs see {story.api_state})"
    )
    if story.error_code is not None:
        console().print(f"Error {story.error_code}: {story.error_description}")
    print_table(
        "States",
        ("from", "to", "reason", "at (UTC)"),
        [(None, "(received by the edge)", None, clock(story.received))]
        + [(step.from_state, step.to_state, step.reason, clock(step.at)) for step in story.steps],
    )
    print_table("Items", ("state", "items"), story.items_by_state().items())
    if story.reasons():
        print_table(
            "Why items were not committed",
            ("state", "error", "description", "items"),
            ((one.state, one.error_code, one.error_description, one.items) for one in story.reasons()),
        )
    print_callbacks(story.callbacks)


def print_callbacks(callbacks: tuple[Callback, ...]) -> None:
    """Each attempt of each callback; a callback without a recorded attempt has one line too."""
    rows: list[tuple[object, ...]] = []
    for one in callbacks:
        delivery = one.delivery
        head = (delivery.delivery_id, delivery.fsp, delivery.kind, delivery.callback, delivery.state)
        if not one.attempts:
            rows.append((*head, None, None, None, clock(delivery.created_date)))
        for attempt in one.attempts:
            answer = attempt.status if attempt.error is None else attempt.error
            rows.append((*head, attempt.attempt, answer, attempt.duration_ms, clock(attempt.created_date)))
    columns = ("delivery", "to", "kind", "callback", "state", "attempt", "answer", "ms", "at (UTC)")
    print_table("Callbacks", columns, rows)
