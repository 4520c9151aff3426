"""What is kept for a time goes when the time is over: callbacks, results, requests, contents, dead letters.

`bulk-switch retention` runs this; any time, as often as one likes, beside everything else. In this order:

    1. callbacks     rows that are DELIVERED, or DEAD and no final outcome, finished for callbacks_kept_days, whose bulk or
                     transfer has ended as long ago; their attempts go with them
    2. results       what an ended bulk was told: the rows stay, their contents are emptied; GET then shows the state alone
    3. objects       requests of what ended objects_kept_days ago; requests that no row knows (their sender was never
                     answered, or was refused before anything was written, D20) after orphans_kept_days; contents that no
                     row names any more
    4. dead letters  older than dead_letters_kept_days (on Kafka the topic's own retention does it too)

Never removed: anything of a bulk or a single transfer that has not ended, a callback that is WAITING, an outcome that was
not delivered (operators can still send it), an object that a row names, a request that stands unread in a topic.

**Rows first, then objects.** An object without a row is litter, which the next run finds; a row without its object would be
a lie. A kill -9 between the two, or at any other line, leaves nothing but work for the next run. `retention_horizon` says,
from before the first removal on, what may be gone; `bulk-switch verify` reads it.

**Beside running handlers.** An object is deleted only if it is older than a *horizon* and no row names it. What a message
names that is under way is safe because of three rules together:

    - who puts the key of an object into a message has made sure that it was put less than a day before
      (object_store/content.py)
    - the horizon is at least two days behind the oldest message that was not read, and the oldest outputs that may still
      have to be sent; so whatever an unread message names is younger than the horizon
    - a message that was read has written its row in the same transaction, and the rows are looked at after the messages

An object that is put again in the instant of its deletion stays (`delete_older`). A handler that stands still for months
holds retention back, and the report says which one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine

from db import retention as rows
from db.audit import write_audit
from db.retention import Horizons
from object_store.interface import ObjectStore, StoredObject
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX
from stream.interface import Stream

# An object that a message names was put a day before at most; another day for the clocks of all machines.
_MARGIN = timedelta(days=2)
_ROWS_PER_TRANSACTION = 1_000
_OBJECTS_PER_PAGE = 1_000
_RECORDS_PER_READ = 100

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RetentionTimes:
    """How long each kind is kept after its end."""

    callbacks_kept_days: int
    objects_kept_days: int
    orphans_kept_days: int
    dead_letters_kept_days: int


@dataclass(slots=True)
class RetentionReport:
    """What was removed, or in a dry run would be; `held_back_by` says what keeps more from being removed, if anything."""

    is_dry_run: bool
    callbacks_before: datetime
    objects_before: datetime
    orphans_before: datetime
    held_back_by: str | None
    callbacks: int = 0
    results: int = 0
    objects: dict[str, int] = field(default_factory=lambda: {"requests": 0, "orphans": 0, "contents": 0})
    dead_letters: int = 0


class RetentionRuns(Exception):
    """Another retention is under way."""


def run_retention(
    engine: Engine,
    store: ObjectStore,
    stream: Stream,
    times: RetentionTimes,
    *,
    actor: str,
    is_dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> RetentionReport:
    """Remove what is over its time; raises RetentionRuns, and what the database, the store and the stream raise."""
    with _alone(engine) as connection:
        horizons, held_back_by = _horizons(connection, stream, times)
        report = RetentionReport(is_dry_run, horizons.callbacks, horizons.objects, horizons.orphans, held_back_by)
        if is_dry_run:
            with connection.begin():
                report.callbacks, report.results = rows.count_removable(connection, horizons)
        else:
            with connection.begin():
                rows.note_horizons(connection, horizons)
            report.callbacks = _walk(connection, rows.remove_callbacks, horizons, progress, "callbacks")
            report.results = _walk(connection, rows.forget_results, horizons, progress, "results")
            store.delete_unfinished(_milliseconds(horizons.orphans))
        _remove_objects(connection, store, horizons, report, progress)
        report.dead_letters = _trim_dead_letters(stream, _now(connection) - _days(times.dead_letters_kept_days), report)
        if not is_dry_run:
            with connection.begin():
                write_audit(
                    connection, actor=actor, action="retention", subject="retention", before=None, after=_facts(report)
                )
        return report


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        with connection.begin():
            locked = rows.try_lock(connection)
        if not locked:
            raise RetentionRuns("another retention is under way")
        try:
            yield connection
        finally:
            if connection.in_transaction():
                connection.rollback()
            with connection.begin():
                rows.unlock(connection)


def _now(connection: Connection) -> datetime:
    with connection.begin():
        return rows.read_now(connection)


def _horizons(connection: Connection, stream: Stream, times: RetentionTimes) -> tuple[Horizons, str | None]:
    """The latest times before which things may go, and what holds them back from what the settings say."""
    with connection.begin():
        now = rows.read_now(connection)
        next_offsets = rows.next_offsets(connection)
        journal = rows.oldest_journal(connection)
    latest, held_back_by = now, None
    if journal is not None and journal[1] < latest:
        latest, held_back_by = journal[1], f"outputs that {journal[0]} has stored and may have to send again"
    for handler, topic, timestamp in _oldest_unread(stream, next_offsets):
        if timestamp < latest:
            latest, held_back_by = timestamp, f"what {handler} has not read yet on {topic}"
    latest -= _MARGIN
    wanted = [
        now - _days(days) for days in (times.callbacks_kept_days, times.objects_kept_days, times.orphans_kept_days)
    ]
    horizons = Horizons(*(min(one, latest) for one in wanted))
    return horizons, held_back_by if latest < max(wanted) else None


def _oldest_unread(
    stream: Stream, next_offsets: Mapping[tuple[str, str, int], int]
) -> Iterator[tuple[str, str, datetime]]:
    """The time of the first record that its reader has not come to, of every partition that has one."""
    for topic in CATALOGUE.values():
        if topic.name.endswith(DEAD_LETTER_SUFFIX):
            continue
        starts = stream.start_offsets(topic.name)
        for partition, end in stream.end_offsets(topic.name).items():
            next_offset = max(next_offsets.get((topic.consumer, topic.name, partition), 0), starts[partition])
            if next_offset < end:
                for record in stream.read(topic.name, partition, next_offset, 1):
                    yield topic.consumer, topic.name, datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)


def _walk(
    connection: Connection,
    remove: Callable[[Connection, Horizons, int, int], rows.Batch],
    horizons: Horizons,
    progress: Progress,
    what: str,
) -> int:
    """A transaction per batch, until there is no more."""
    removed, after = 0, 0
    while True:
        with connection.begin():
            batch = remove(connection, horizons, after, _ROWS_PER_TRANSACTION)
        removed += batch.removed
        if batch.removed:
            progress(f"{removed:,} {what} removed")
        if batch.after is None:
            return removed
        after = batch.after


def _remove_objects(
    connection: Connection, store: ObjectStore, horizons: Horizons, report: RetentionReport, progress: Progress
) -> None:
    with connection.begin():
        rows.begin_candidates(connection)
    # An orphan's time may be shorter than the others': what is too young for its kind is taken out again.
    before_ms = _milliseconds(max(horizons.objects, horizons.orphans))
    looked_at = 0
    for page in _pages(store):
        looked_at += len(page)
        progress(f"{looked_at:,} objects looked at")
        old = [(one.key, one.put_ms, _entity_of(one.key)) for one in page if one.put_ms < before_ms]
        if old:
            with connection.begin():
                rows.add_candidates(connection, old)
    with connection.begin():
        rows.keep_what_is_named(connection, horizons, is_dry=report.is_dry_run)
        if report.is_dry_run:
            report.objects |= rows.count_candidates(connection)
            return
    limits_ms = {
        "requests": _milliseconds(horizons.objects),
        "contents": _milliseconds(horizons.objects),
        "orphans": _milliseconds(horizons.orphans),
    }
    after = ""
    while True:
        with connection.begin():
            found = rows.candidates(connection, after, _OBJECTS_PER_PAGE)
        if not found:
            return
        for key, kind in found:
            report.objects[kind] += store.delete_older(key, limits_ms[kind])
        after = found[-1][0]
        progress(f"{sum(report.objects.values()):,} objects removed")


def _pages(store: ObjectStore) -> Iterator[list[StoredObject]]:
    for prefix in ("requests/", "content/"):
        after = ""
        while page := store.page(prefix, after, _OBJECTS_PER_PAGE):
            yield page
            after = page[-1].key


def _entity_of(key: str) -> str | None:
    """The bulkTransferId or transferId that a request is about; None for a content."""
    kind, entity, *_ = key.split("/")
    return str(UUID(entity)) if kind == "requests" else None


def _trim_dead_letters(stream: Stream, before: datetime, report: RetentionReport) -> int:
    """Forget the dead letters of every topic that are older; a bounded read at a time."""
    removed = 0
    for topic in CATALOGUE:
        if not topic.endswith(DEAD_LETTER_SUFFIX):
            continue
        ends = stream.end_offsets(topic)
        for partition, start in stream.start_offsets(topic).items():
            keep_from = _first_from(stream, topic, partition, start, ends[partition], before)
            removed += keep_from - start
            if keep_from > start and not report.is_dry_run:
                stream.trim(topic, partition, keep_from)
    return removed


def _first_from(stream: Stream, topic: str, partition: int, start: int, end: int, before: datetime) -> int:
    """The offset of the first record that was not written before this time."""
    offset = start
    while offset < end:
        records = stream.read(topic, partition, offset, _RECORDS_PER_READ)
        for record in records:
            if record.timestamp_ms >= _milliseconds(before):
                return record.offset
        if not records:
            return end
        offset = records[-1].offset + 1
    return offset


def _days(days: int) -> timedelta:
    return timedelta(days=days)


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _facts(report: RetentionReport) -> dict[str, object]:
    return {
        "callbacks": report.callbacks,
        "results": report.results,
        **report.objects,
        "deadLetters": report.dead_letters,
        "callbacksBefore": report.callbacks_before.isoformat(),
        "objectsBefore": report.objects_before.isoformat(),
        "orphansBefore": report.orphans_before.isoformat(),
    }
