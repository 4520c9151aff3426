"""`bulk-switch redrive` and `bulk-switch restored`: going on after topics were lost, and after a database was restored."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from domain.bulk_prepare import BulkRules
from operations.commands.acting import actor_name
from operations.commands.database import DataFolder, bulk_transfer_id_of, connected
from operations.commands.mistakes import Mistake
from operations.new_log import HandlersRun, NewLogRow, begin_new_logs, find_new_logs, require_stopped
from operations.opening import make_object_store, opened_stream
from operations.printing import AsJson, clock, console, print_json, print_table, progress_line
from operations.redrive import RedriveReport, RedriveScope, UnknownIds, run_redrive
from operations.restored import RestoredReport, run_restored

app = typer.Typer()

_SINCE_DEFAULT = timedelta(days=1)

Since = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"],
        help="UTC. Requests that were kept before this are not looked at; a day ago if not given.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command()
def redrive(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[BULK_ID…]", help="Only these bulks or single transfers.")
    ] = None,
    from_objects: Annotated[
        bool, typer.Option("--from-objects", help="Also publish kept requests that no handler has read.")
    ] = False,
    new_log: Annotated[
        bool, typer.Option("--new-log", help="First let the readers of topics that began anew begin with them.")
    ] = False,
    since: Since = None,
    dry_run: DryRun = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Send again what every unfinished bulk and transfer waits for. Safe at any time: repeats are dropped."""
    wanted = [bulk_transfer_id_of(one).bytes for one in ids or ()]
    if since is not None and not from_objects:
        raise Mistake("--since says how far back --from-objects looks; it means nothing without it")
    scope = RedriveScope(wanted, _milliseconds(since) if from_objects else None)
    with (
        connected(data_folder) as (settings, engine),
        opened_stream(settings, engine) as stream,
        progress_line(silent=as_json) as progress,
    ):
        begun: list[NewLogRow] = []
        try:
            if new_log:
                require_stopped(engine)
                begun = find_new_logs(engine, stream)
                if not dry_run:
                    begin_new_logs(engine, stream, begun, actor=actor_name())
            report = run_redrive(
                engine,
                make_object_store(settings),
                stream,
                BulkRules(settings.expiration_horizon_ms, settings.ascending_amount_order),
                scope,
                items_per_bulk_max=settings.items_per_bulk_max,
                actor=actor_name(),
                is_dry_run=dry_run,
                progress=progress,
            )
        except (HandlersRun, UnknownIds) as mistake:
            raise Mistake(str(mistake)) from None
    if as_json:
        print_json({"new_logs": begun, **_facts(report)})
        return
    if new_log:
        _print_new_logs(begun, dry_run=dry_run)
    _print_report(report, from_objects=from_objects)


@app.command()
def restored(
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"], help="UTC. The moment that the database stands at."
        ),
    ],
    until: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"], help="UTC. When it was lost; now if not given."
        ),
    ] = None,
    dry_run: DryRun = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """After a restore to an earlier moment, before handlers start: draw no number twice, and list what is known of since."""
    with (
        connected(data_folder) as (settings, engine),
        opened_stream(settings, engine) as stream,
        progress_line(silent=as_json) as progress,
    ):
        try:
            report = run_restored(
                engine,
                make_object_store(settings),
                stream,
                since_ms=_milliseconds(since),
                until_ms=_milliseconds(until) if until else time.time_ns() // 1_000_000,
                items_per_bulk_max=settings.items_per_bulk_max,
                actor=actor_name(),
                is_dry_run=dry_run,
                progress=progress,
            )
        except HandlersRun as mistake:
            raise Mistake(str(mistake)) from None
    if as_json:
        print_json(report)
    else:
        _print_restored(report)


def _milliseconds(instant: datetime | None) -> int:
    at = datetime.now(UTC) - _SINCE_DEFAULT if instant is None else instant.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)


def _facts(report: RedriveReport) -> dict[str, object]:
    names = RedriveReport.__dataclass_fields__
    return {name: getattr(report, name) for name in names} | {"messages": report.messages}


def _print_new_logs(rows: list[NewLogRow], *, dry_run: bool) -> None:
    if not rows:
        console().print("Every offset belongs to the log that is there.")
        return
    print_table(
        "Would begin anew" if dry_run else "Begun anew",
        ("handler", "topic", "partition", "offset before", "offset now", "stored outputs"),
        (
            (
                row.handler,
                row.topic,
                row.partition,
                row.old_offset,
                "gone" if row.next_offset is None else row.next_offset,
                "sent" if row.has_outputs else "none",
            )
            for row in rows
        ),
    )


def _print_report(report: RedriveReport, *, from_objects: bool) -> None:
    out = console()
    out.print(f"Looked at {report.bulks:,} unfinished bulks and {report.singles:,} unfinished single transfers.")
    if report.kinds:
        print_table(
            "Would be sent again" if report.is_dry_run else "Sent again",
            ("topic", "action", "messages", "of so many", "the first of them"),
            ((one.topic, one.action, one.messages, one.entities, "\n".join(one.first)) for one in report.kinds),
        )
    out.print(
        f"{report.waiting_for_payee:,} transfers wait for their payee, {report.waiting_for_clock:,} for the clock; "
        "nothing is owed for them."
    )
    if report.lost_requests:
        out.print(f"Their kept requests cannot be read; they end when they expire: {', '.join(report.lost_requests)}")
    if from_objects:
        print_table(
            "Kept requests that no row knows",
            ("request", "would be published" if report.is_dry_run else "published", "later", "the first of them"),
            ((one.request, one.published, one.later, "\n".join(one.first)) for one in report.requests),
        )
        out.print(
            "Some of these may have been answered 503: publishing them is safe, because what their senders have sent "
            "again since is the same body, and one of the two is a repeat."
        )
        if any(one.later for one in report.requests):
            out.print("Those for later wait for their bulk or transfer: run this again when it has been worked on.")
        if report.unreadable_requests:
            out.print(f"{report.unreadable_requests:,} kept requests cannot be told apart and were left alone.")


def _print_restored(report: RestoredReport) -> None:
    out = console()
    verb = "would be" if report.is_dry_run else "is"
    out.print(
        f"The highest number in the topics is {report.highest_number:,}, the database's {report.last_number:,}; "
        f"the next one drawn {verb} above {report.advanced_to:,}."
    )
    print_table(
        "Records behind the restored offsets",
        ("handler", "topic", "records", "not kept any more", "are"),
        (
            (one.handler, one.topic, one.records, one.gone, "read again" if one.is_read_again else "passed over")
            for one in report.unread
        ),
    )
    print_table(
        "Kept requests that the database does not know",
        ("request", "number", "the first of them"),
        ((one.request, one.published + one.later, "\n".join(one.first)) for one in report.requests),
    )
    print_table(
        "Said to FSPs, and not what the database says now",
        ("transfer", "bulk", "said", "now", "kept at (UTC)"),
        (
            (UUID(bytes=one.transfer_id), one.bulk_transfer_id, one.said, one.now, clock(one.kept_at))
            for one in report.contradictions
        ),
    )
    if report.unattributed_contents:
        out.print(
            f"{report.unattributed_contents:,} other contents since then are named by no row, and name no transfer."
        )
