"""What the demo shows: live bars where a person watches, plain lines where nobody does, tables or JSON at the end."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from domain.states import ItemState
from operations import demo_bulk
from operations.bulk_story import BulkStory
from operations.commands.bulks import print_callbacks
from operations.demo import DemoOutcome, Watcher
from operations.printing import console, print_table
from operations.world_file import World

# What a person wants to see of the nine states, and which of them that is.
_BARS: Mapping[str, tuple[ItemState, ...]] = {
    "waiting for a reservation": (ItemState.RECEIVED,),
    "refused by the switch": (ItemState.RECEIVED_INVALID, ItemState.RECEIVED_DUPLICATE),
    "reserved": (ItemState.ACCEPTED,),
    "committed": (ItemState.COMPLETED,),
    "aborted": (ItemState.REJECTED, ItemState.FULFIL_INVALID, ItemState.FULFIL_DUPLICATE, ItemState.EXPIRED),
}

_PHASES = {
    "world": "the switch starts: database, topics, all its processes",
    "provision": "two FSPs get accounts, limits, funds and endpoints",
    "post": "POST to 202: the request is kept, its reference published",
    "reserve": "checks and reservations, until the payee's POST is written down",
    "payee": "the POST reaches the payee, its PUT is accepted",
    "fulfil": "commits and aborts, until both results are written down",
    "callbacks": "both final callbacks are delivered",
    "bulk": "the bulk as a whole, from POST to last callback",
    "total": "all of it",
}


class LiveWatcher:
    """Bars that move, on a terminal; ends with the block."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console(), transient=True)
        self._tasks = {name: self._progress.add_task(name, total=demo_bulk.ITEMS) for name in _BARS}
        self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, line: str) -> None:
        self._progress.console.print(line)

    def show(self, items: Mapping[str, int]) -> None:
        if items and not self._is_shown:
            self._progress.start()
            self._is_shown = True
        for name, states in _BARS.items():
            self._progress.update(self._tasks[name], completed=sum(items.get(state, 0) for state in states))

    def close(self) -> None:
        if self._is_shown:
            self._progress.stop()
            self._is_shown = False


class PlainWatcher:
    """A line whenever something has changed, with the seconds since the beginning."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._began = time.monotonic()
        self._last: dict[str, int] = {}

    def say(self, line: str) -> None:
        self._out.print(f"{time.monotonic() - self._began:6.2f} s  {line}")

    def show(self, items: Mapping[str, int]) -> None:
        counts = {name: sum(items.get(state, 0) for state in states) for name, states in _BARS.items()}
        counts = {name: count for name, count in counts.items() if count}
        if counts and counts != self._last:
            self._last = counts
            self.say(", ".join(f"{count:,} {name}" for name, count in counts.items()))


class SilentWatcher:
    """For those who want nothing but the end."""

    def say(self, line: str) -> None: ...

    def show(self, items: Mapping[str, int]) -> None: ...


def make_watcher(*, as_json: bool) -> Watcher:
    if as_json:
        return SilentWatcher()
    return LiveWatcher() if sys.stdout.isatty() else PlainWatcher(console())


def print_outcome(outcome: DemoOutcome) -> None:
    """The tables at the end."""
    out = console()
    story = outcome.story
    out.print(
        f"\n[bold]Bulk {story.bulk_transfer_id}[/bold] of {story.payer_fsp} to {story.payee_fsp}: {story.api_state}"
    )
    print_table("What became of the payments", ("payments", "what"), _payment_rows(outcome))
    print_callbacks(story.callbacks)
    out.print(
        f"The payer's PUT lists {outcome.results_fulfilled + outcome.results_with_error:,} results "
        f"{'in the order of its request' if outcome.results_in_request_order else 'OUT OF ORDER'}: "
        f"{outcome.results_fulfilled:,} with a fulfilment, {outcome.results_with_error:,} with an error."
    )
    print_table(
        "Positions",
        ("FSP", "currency", "before", "after"),
        (
            (fsp, currency, before, outcome.positions_after[fsp][currency])
            for fsp, positions in outcome.positions_before.items()
            for currency, before in positions.items()
        ),
    )
    print_table(
        "Seconds",
        ("seconds", "what"),
        ((f"{outcome.seconds[name]:.3f}", text) for name, text in _PHASES.items()),
    )


def _payment_rows(outcome: DemoOutcome) -> list[tuple[str, str]]:
    return [
        (f"{outcome.sent:,}", "sent by the payer"),
        (f"{outcome.reserved:,}", "reserved, and forwarded to the payee"),
        (f"{outcome.committed:,}", "committed"),
        (f"{outcome.aborted:,}", "aborted by the payee"),
        *_reason_rows(outcome.story, ItemState.REJECTED),
        (f"{outcome.refused:,}", "refused by the switch"),
        *_reason_rows(outcome.story, ItemState.RECEIVED_INVALID),
    ]


def _reason_rows(story: BulkStory, state: ItemState) -> list[tuple[str, str]]:
    reasons = [one for one in story.reasons() if one.state is state]
    return [("", f"  {one.items:>3} × {one.error_code} {one.error_description}") for one in reasons]


def outcome_document(outcome: DemoOutcome) -> dict[str, Any]:
    """What `--json` prints."""
    story = outcome.story
    return {
        "bulk_transfer_id": story.bulk_transfer_id,
        "state": story.api_state,
        "sent": outcome.sent,
        "reserved": outcome.reserved,
        "committed": outcome.committed,
        "aborted": outcome.aborted,
        "refused": outcome.refused,
        "reasons": story.reasons(),
        "payer_callbacks": outcome.payer_callbacks,
        "payee_requests": outcome.payee_requests,
        "payee_callbacks": outcome.payee_callbacks,
        "repeats": outcome.repeats,
        "callbacks": [
            {
                "to": one.delivery.fsp,
                "kind": one.delivery.kind,
                "callback": one.delivery.callback,
                "state": one.delivery.state,
                "attempts": len(one.attempts),
                "status": one.delivery.last_status,
            }
            for one in story.callbacks
        ],
        "results_in_request_order": outcome.results_in_request_order,
        "positions_before": outcome.positions_before,
        "positions_after": outcome.positions_after,
        "seconds": outcome.seconds,
    }


def _reaching_real_parts(world: World) -> list[tuple[str, str]]:
    """The secrets come from the services, the places are this demo's own."""
    if not world.object_store_url.startswith("s3://"):
        return []
    return [
        ('eval "$(scripts/services env)"', ""),
        (f"export BULK_SWITCH_DATABASE_URL='{world.database_url}'", ""),
        (f"export BULK_SWITCH_STREAM_URL='{world.stream_url}'", ""),
        (f"export BULK_SWITCH_OBJECT_STORE_URL='{world.object_store_url}'", ""),
    ]


def print_next(outcome: DemoOutcome, *, kept: bool, command: str) -> None:
    """What to try next; each line can be copied."""
    bulk = outcome.story.bulk_transfer_id
    if kept:
        folder = next(iter(outcome.world.logs.values())).rpartition("/logs/")[0]
        intro = "The switch and both FSPs run until Ctrl-C. In another terminal:"
        lines = [
            (f"export BULK_SWITCH_DATA_FOLDER={folder}", ""),
            *_reaching_real_parts(outcome.world),
            (f"{command} bulk show {bulk}", "its states, items, callbacks and times"),
            (f"{command} participant list", "who takes part, and where they stand"),
            (f"{command} delivery list", "every callback"),
            (f"{command} lag", "how far each handler is"),
            (f"curl -i {outcome.world.fspiop_url}/health", ""),
        ]
    else:
        intro = "Next:"
        lines = [
            ("scripts/demo --keep", "the same, and all of it goes on running for you to look at"),
            ("scripts/demo --json", "the same as one JSON object"),
            (f"{command} up", "a switch of your own, kept in .bulk-switch"),
            ("scripts/test", "all checks and tests"),
        ]
    out = console()
    out.print(f"\n[bold]{intro}[/bold]")
    width = max(len(line) for line, what in lines if what)
    for line, what in lines:
        out.print(f"  {line:<{width}}  {what}".rstrip(), soft_wrap=True)
