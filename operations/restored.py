"""A database that was restored to an earlier moment: topics, objects and FSPs know more than it does.

`bulk-switch restored --since MOMENT` is run before any handler starts. It makes two things safe, and lists the rest:

1. **What the lost time has left in the topics** is not read, but for the POSTs: every message there follows from rows
   that are no more. The callbacks among them would tell another history than the one that comes now; an answer of a payee
   would be refused for ever, because it would overtake the bulk that it answers. So the readers of every topic but those
   of the POSTs begin at its end. All that they would have read is derived again: from the rows, and from the object store,
   where an answer waits for its bulk (`redrive --from-objects --since MOMENT`, until nothing is left for later). The POSTs
   are read again from the restored offsets on, in their order, so that the same ones come first.
2. **Numbers.** A bulk's number, drawn from a sequence, stands in the key of every message about its items. The restored
   sequence would give the numbers of the lost time to other bulks, and an old message (a dead letter that is sent again, a
   handler that stood still) would move another bulk's money. So the sequence is advanced past the highest number that stands
   in any message behind the restored offsets, and by `NUMBERS_MARGIN` more: an old message names a number that no row has,
   and every handler drops it.
3. **Requests** that were kept after the moment and that no row knows.
4. **What FSPs were told**: results that were kept between the moment and the loss, and that the database does not say now.
   What the switch comes to again in the same bytes is no contradiction, so the list shrinks while handlers catch up; what is
   left when they have is to be settled with the FSPs by people.

What is not listed: acts of operators (admin_audit ends with the moment too), and what the hub itself said of single
transfers, because it names none. What one FSP said of them reached the other as it was sent, and stands among the requests.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine

from db.audit import write_audit
from db.progress import pass_over, progress_rows
from db.restored import (
    add_contents,
    advance_numbers,
    begin_contents,
    contents_left,
    last_number,
    take_out_named,
    transfers_now,
)
from domain.combinations import TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE
from domain.identifiers import ITEMS_PER_BULK, bulk_key_of, id_bytes
from object_store.interface import ObjectMissing, ObjectStore
from operations.new_log import require_stopped
from operations.redrive import RedriveReport, UnreadKind
from operations.redrive_requests import kept_since, unread_requests
from schemas.codec import Undecodable, UnknownSchema, codec
from schemas.messages import DeadLetter
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX, Topic
from stream.interface import Record, Stream

# Drawn, and not yet in any message, when the database was lost; numbers are plentiful (9 * 10^14 of them fit a key).
NUMBERS_MARGIN = 1_000_000
_RECORDS_PER_READ = 500
_OBJECTS_PER_PAGE = 500
_CONTRADICTIONS_MAX = 1_000

# What FSPs asked for first; all else follows from rows, or is judged against them.
_READ_AGAIN = frozenset({TOPIC_BULK_PREPARE, TOPIC_SINGLE_PREPARE})

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class UnreadTopic:
    """Records behind the restored offsets: read again or passed over; `gone` are those that are not kept any more."""

    handler: str
    topic: str
    records: int
    gone: int
    is_read_again: bool


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A side of a bulk was told one thing of a transfer, and the database says another now."""

    transfer_id: bytes
    bulk_transfer_id: str | None
    said: str
    now: str
    kept_at: datetime


@dataclass(slots=True)
class RestoredReport:
    """See the module's docstring; `contradictions` are at most so many as are of use to a reader."""

    is_dry_run: bool
    last_number: int = 0
    highest_number: int = 0
    advanced_to: int = 0
    unread: list[UnreadTopic] = field(default_factory=list)
    requests: list[UnreadKind] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)
    unattributed_contents: int = 0


def run_restored(
    engine: Engine,
    store: ObjectStore,
    stream: Stream,
    *,
    since_ms: int,
    until_ms: int,
    items_per_bulk_max: int,
    actor: str,
    is_dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> RestoredReport:
    """Make it safe (unless `is_dry_run`, which may run beside handlers) and list; raises HandlersRun."""
    report = RestoredReport(is_dry_run)
    if not is_dry_run:
        require_stopped(engine)
    _look_at_topics(engine, stream, report, progress)
    _make_safe(engine, stream, report, actor)
    requests = RedriveReport(is_dry_run=True)
    for page in kept_since(store, since_ms, _OBJECTS_PER_PAGE):
        with engine.connect() as tx:
            requests.note_requests(unread_requests(tx, store, page, weight_max=items_per_bulk_max))
        progress(f"{sum(one.published + one.later for one in requests.requests):,} requests that no row knows")
    report.requests = requests.requests
    with engine.begin() as tx:
        _compare(tx, store, report, since_ms, until_ms)
    return report


def _make_safe(engine: Engine, stream: Stream, report: RestoredReport, actor: str) -> None:
    """Numbers and offsets in one transaction: with only one of them the database would not be safe."""
    ends = {
        topic: (stream.log_id(topic.name), stream.end_offsets(topic.name))
        for topic in CATALOGUE.values()
        if topic.name not in _READ_AGAIN and not topic.name.endswith(DEAD_LETTER_SUFFIX)
    }
    with engine.begin() as tx:
        report.last_number = last_number(tx)
        report.advanced_to = max(report.last_number, report.highest_number) + NUMBERS_MARGIN
        if report.is_dry_run:
            return
        advance_numbers(tx, report.advanced_to)
        for topic, (log_id, offsets) in ends.items():
            pass_over(tx, topic.consumer, topic.name, offsets, log_id)
        write_audit(
            tx,
            actor=actor,
            action="restored",
            subject="bulk_transfer_bulk_key_seq",
            before={"lastNumber": report.last_number},
            after={"lastNumber": report.advanced_to},
        )


def _look_at_topics(engine: Engine, stream: Stream, report: RestoredReport, progress: Progress) -> None:
    """The highest number among what is still to be read, and how much that is."""
    with engine.connect() as tx:
        rows = {(row.topic, row.partition): row.next_offset for row in progress_rows(tx, list(CATALOGUE))}
    for topic in CATALOGUE.values():
        starts, ends = stream.start_offsets(topic.name), stream.end_offsets(topic.name)
        records = gone = 0
        for partition, end in sorted(ends.items()):
            wanted = rows.get((topic.name, partition), 0)
            first = max(wanted, starts[partition])
            gone += first - wanted
            records += max(0, end - first)
            for record in _records(stream, topic, partition, first, end):
                report.highest_number = max(report.highest_number, _highest(topic, record))
        progress(f"{topic.name}: {records:,} records")
        if (records or gone) and not topic.name.endswith(DEAD_LETTER_SUFFIX):
            is_read_again = topic.name in _READ_AGAIN
            report.unread.append(UnreadTopic(topic.consumer, topic.name, records, gone, is_read_again))


def _records(stream: Stream, topic: Topic, partition: int, first: int, end: int) -> Iterator[Record]:
    """Those of topics whose messages have numbers; a bounded read at a time."""
    has_numbers = topic.message is DeadLetter or "transfer_key" in topic.message.__dataclass_fields__
    while has_numbers and first < end:
        records = stream.read(topic.name, partition, first, _RECORDS_PER_READ)
        yield from records
        if not records:
            return
        first = records[-1].offset + 1


def _highest(topic: Topic, record: Record) -> int:
    """The highest number that a record names; 0 where it names none, or cannot be read by any handler either."""
    try:
        messages = codec(topic.message).decode(record.value)
        if topic.message is DeadLetter:
            messages = [
                message
                for letter in messages
                if letter.topic in CATALOGUE
                for message in codec(CATALOGUE[letter.topic].message).decode(letter.value)
            ]
    except (Undecodable, UnknownSchema):
        return 0
    return max((bulk_key_of(getattr(message, "transfer_key", 0)) for message in messages), default=0)


def _compare(tx: Connection, store: ObjectStore, report: RestoredReport, since_ms: int, until_ms: int) -> None:
    """Contents of the time in question that no row names, against what the database says now."""
    begin_contents(tx)
    put_ms: dict[str, int] = {}
    after = "content/"
    while page := store.page("content/", after, _OBJECTS_PER_PAGE):
        after = page[-1].key
        young = [one for one in page if since_ms <= one.put_ms <= until_ms]
        put_ms |= {one.key: one.put_ms for one in young}
        if young:
            add_contents(tx, [one.key for one in young])
    take_out_named(tx)
    after = ""
    while keys := contents_left(tx, after, _OBJECTS_PER_PAGE):
        after = keys[-1]
        for key in keys:
            said = _said(store, key)
            if said is None:
                report.unattributed_contents += 1
                continue
            found = _contradictions(tx, said, datetime.fromtimestamp(put_ms[key] / 1000, UTC))
            report.contradictions += found[: max(0, _CONTRADICTIONS_MAX - len(report.contradictions))]


def _said(store: ObjectStore, key: str) -> Mapping[bytes, str] | None:
    """By transferId what a list says: COMMITTED, or the code of its error; None where it is no list of results."""
    try:
        body: Any = orjson.loads(store.get(key))
    except (ObjectMissing, orjson.JSONDecodeError):
        return None
    if not isinstance(body, dict) or "individualTransferResults" not in body:
        return None
    said = {}
    for one in body["individualTransferResults"]:
        # What says neither was an answer to a GET in the middle.
        if "errorInformation" in one:
            said[id_bytes(one["transferId"])] = str(one["errorInformation"]["errorCode"])
        elif "fulfilment" in one:
            said[id_bytes(one["transferId"])] = "COMMITTED"
    return said


def _contradictions(tx: Connection, said: Mapping[bytes, str], kept_at: datetime) -> list[Contradiction]:
    now = transfers_now(tx, list(said), ITEMS_PER_BULK)
    found = []
    for transfer_id, told in said.items():
        one = now.get(transfer_id)
        if one is None:
            # What was refused as a duplicate has no transfer of its own; what was committed must have one.
            if told == "COMMITTED":
                found.append(Contradiction(transfer_id, None, told, "unknown", kept_at))
        elif (told == "COMMITTED") != (one.state == "COMMITTED"):
            bulk = None if one.bulk_transfer_id is None else str(one.bulk_transfer_id)
            found.append(Contradiction(transfer_id, bulk, told, one.error_code or one.state, kept_at))
    return found
