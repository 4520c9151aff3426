"""How `bulk why` and `transfer why` read a story and show it."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from db.stories import TransferFacts
from domain.money import format_amount, from_numeric
from operations.bulk_story import BulkStory
from operations.commands.database import connected
from operations.commands.mistakes import Mistake
from operations.message_search import search_messages
from operations.opening import opened_stream
from operations.printing import clock, console, print_json, print_table, progress_line
from operations.why import Event, Why

RecordsMax = Annotated[int, typer.Option(min=1, help="Of each partition so many records are looked at, at most.")]


def tell_why(
    read: Callable[[Connection], Why | None],
    missing: str,
    *,
    data_folder: Path | None,
    records_max: int,
    as_json: bool,
) -> None:
    """Read a story from the rows and the topics and show it; raises Mistake with `missing` when there is none."""
    with (
        connected(data_folder) as (settings, engine),
        opened_stream(settings, engine) as stream,
        progress_line(silent=as_json) as progress,
    ):
        with engine.connect() as tx:
            why = read(tx)
        if why is None:
            raise Mistake(missing)
        why.add_messages(search_messages(stream, why.wanted, records_max=records_max, progress=progress))
    if as_json:
        print_json(_facts(why))
    else:
        _print(why)


def _facts(why: Why) -> dict[str, object]:
    return {
        "bulk": None if why.bulk is None else _bulk_facts(why.bulk),
        "transfer": None if why.transfer is None else _transfer_facts(why.transfer),
        "events": why.events,
        "conclusion": why.conclusion,
        "records_read": why.records_read,
        "not_read": why.unread,
    }


def _bulk_facts(bulk: BulkStory) -> dict[str, object]:
    return {
        "bulk_transfer_id": bulk.bulk_transfer_id,
        "payer_fsp": bulk.payer_fsp,
        "payee_fsp": bulk.payee_fsp,
        "state": bulk.state,
        "items": bulk.items_by_state(),
        "reasons": bulk.reasons(),
    }


def _transfer_facts(transfer: TransferFacts) -> dict[str, object]:
    amount = None if transfer.amount is None else format_amount(from_numeric(transfer.amount))
    return {**asdict(transfer), "amount": amount}


def _print(why: Why) -> None:
    out = console()
    out.print(f"[bold]{_title(why)}[/bold]")
    if why.transfer is None and why.bulk is not None:
        print_table("Items", ("state", "items"), why.bulk.items_by_state().items())
    print_table(
        "What happened",
        ("at (UTC)", "about", "what", "reason", "position", "error or answer", "where"),
        (
            (clock(one.at), one.about, one.what, one.reason, one.position, _answer(one), one.place or one.url)
            for one in why.events
        ),
    )
    out.print(f"\n{why.records_read:,} records of the topics were looked at.")
    for place in why.unread:
        out.print(f"Not looked at: {place} (--records-max).")
    out.print(f"\n[bold]{why.conclusion}[/bold]")


def _title(why: Why) -> str:
    if why.transfer is None:
        assert why.bulk is not None
        bulk = why.bulk
        return f"Bulk {bulk.bulk_transfer_id}: {bulk.payer_fsp} pays {bulk.item_count} items to {bulk.payee_fsp or '?'}"
    transfer = why.transfer
    of = "single" if transfer.bulk_transfer_id is None else f"of bulk {transfer.bulk_transfer_id}"
    amount = "?" if transfer.amount is None else f"{format_amount(from_numeric(transfer.amount))} {transfer.currency}"
    return f"Transfer {transfer.transfer_id}, {of}: {transfer.payer_fsp} pays {amount} to {transfer.payee_fsp or '?'}"


def _answer(event: Event) -> str | None:
    if event.duration_ms is None:
        return event.error
    return f"{event.error or event.status} in {event.duration_ms} ms"
