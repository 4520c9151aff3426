"""Redrive: what is unfinished gets the message that its state calls for once more; nothing else is needed to go on.

`bulk-switch redrive` runs this. Outputs are a function of state, so a topic that was lost is filled again from the database;
whoever reads a message that was not lost drops it by state. So it may be run at any moment, beside running handlers, any
number of times, for everything or for some ids, and it may be killed at any point.

    1. open     every bulk and single transfer that has not ended: what its items, its transfer and its payee wait for
    2. ended    final callbacks that nobody has written down
    3. objects  with `since`: requests in the object store that no handler has read (redrive_requests)

Each page is read in one snapshot, at most `_ITEMS_PER_PAGE` items or `_ROWS_PER_PAGE` rows; its messages are published and
acknowledged before the next page is read. An act stands in the audit before the first message is sent.

Not derived, because nothing that is unfinished waits for it: answers to a GET, and to requests that were sent again or
refused. Who waits for one asks again; `since` finds those requests that were kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from db.audit import write_audit
from db.redrive import OpenPage, all_singles, ended_bulks, numbers_of, open_among, open_page
from domain.bulk_prepare import BulkRules
from domain.identifiers import id_text, single_key
from domain.redrive import RequestVerdict, WaitsFor
from handlers.handler import Output, SlowDown
from handlers.journal import frames
from object_store.interface import ObjectStore, ObjectStoreUnavailable
from operations.redrive_requests import UnreadRequest, kept_since, unread_requests
from operations.redrive_rows import Derived, RowDerivation
from stream.interface import Producer, Stream

_ITEMS_PER_PAGE = 20_000
# Of bulks that are named by their ids; each may have as many items as a bulk may have.
_NAMED_PER_PAGE = 20
_ROWS_PER_PAGE = 5_000
_OBJECTS_PER_PAGE = 500
_FRAME_MESSAGES_MAX = 250
_ACKS_WAIT_MS = 30_000
# So many ids of each kind are named.
_NAMED_MAX = 5

Progress = Callable[[str], None]


class UnknownIds(Exception):
    """No bulk or single transfer has these ids."""


@dataclass(frozen=True, slots=True)
class RedriveScope:
    """Which entities (none named: all), and from when on the object store is looked through (None: not at all)."""

    ids: Sequence[bytes] = ()
    since_ms: int | None = None


@dataclass(slots=True)
class RedriveKind:
    """One sort of message: how many, about how many bulks or transfers, and the first of those."""

    topic: str
    action: str
    messages: int = 0
    entities: int = 0
    first: list[str] = field(default_factory=list)


@dataclass(slots=True)
class UnreadKind:
    """One sort of request that no row names: how many are published, how many wait for what they answer."""

    request: str
    published: int = 0
    later: int = 0
    first: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RedriveReport:
    """What was published, or in a dry run would be; who waits for somebody else; whose request cannot be read any more."""

    is_dry_run: bool
    bulks: int = 0
    singles: int = 0
    kinds: list[RedriveKind] = field(default_factory=list)
    waiting_for_payee: int = 0
    waiting_for_clock: int = 0
    lost_requests: list[str] = field(default_factory=list)
    requests: list[UnreadKind] = field(default_factory=list)
    unreadable_requests: int = 0

    @property
    def messages(self) -> int:
        return sum(kind.messages for kind in self.kinds) + sum(kind.published for kind in self.requests)

    def note(self, derived: Derived) -> None:
        """Count what was derived."""
        seen: set[tuple[str, str, bytes]] = set()
        for entity_id, output in derived.outputs:
            action = output.message.action  # type: ignore[union-attr]  # nothing here sends a tick or a dead letter
            kind = self._kind(output.topic, action)
            kind.messages += 1
            if (output.topic, action, entity_id) not in seen:
                seen.add((output.topic, action, entity_id))
                kind.entities += 1
                if len(kind.first) < _NAMED_MAX:
                    kind.first.append(id_text(entity_id))
        self.waiting_for_payee += derived.waiting[WaitsFor.PAYEE]
        self.waiting_for_clock += derived.waiting[WaitsFor.CLOCK]
        self.lost_requests += [id_text(one) for one in derived.lost][: max(0, _NAMED_MAX - len(self.lost_requests))]

    def note_requests(self, unread: Sequence[UnreadRequest]) -> None:
        for one in unread:
            if one.kind is None or one.output is None:
                self.unreadable_requests += 1
                continue
            kind = self._request_kind(one.kind.value)
            if one.verdict is RequestVerdict.PUBLISH:
                kind.published += 1
            else:
                kind.later += 1
            if len(kind.first) < _NAMED_MAX:
                kind.first.append(id_text(one.entity_id))

    def _kind(self, topic: str, action: str) -> RedriveKind:
        for kind in self.kinds:
            if (kind.topic, kind.action) == (topic, action):
                return kind
        self.kinds.append(RedriveKind(topic, action))
        return self.kinds[-1]

    def _request_kind(self, request: str) -> UnreadKind:
        for kind in self.requests:
            if kind.request == request:
                return kind
        self.requests.append(UnreadKind(request))
        return self.requests[-1]


def run_redrive(
    engine: Engine,
    store: ObjectStore,
    stream: Stream,
    rules: BulkRules,
    scope: RedriveScope,
    *,
    items_per_bulk_max: int,
    actor: str,
    is_dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> RedriveReport:
    """Publish what is owed; raises UnknownIds, and what the database, the store and the stream raise."""
    report = RedriveReport(is_dry_run)
    rows = RowDerivation(store, rules, is_dry_run=is_dry_run)
    numbers = _numbers(engine, scope)
    if not is_dry_run:
        _audit(engine, actor, scope)
    with _publisher(stream, is_dry_run=is_dry_run) as publish:
        for derived in _derive(engine, rows, numbers, report):
            report.note(derived)
            publish([output for _, output in derived.outputs])
            progress(f"{report.messages:,} messages")
        if scope.since_ms is not None:
            wanted = set(scope.ids)
            for page in kept_since(store, scope.since_ms, _OBJECTS_PER_PAGE):
                with _snapshot(engine) as tx:
                    found = unread_requests(tx, store, page, weight_max=items_per_bulk_max)
                found = [one for one in found if not wanted or one.entity_id in wanted]
                report.note_requests(found)
                publish(_to_publish(found))
                progress(f"{report.messages:,} messages")
    return report


def _to_publish(unread: Sequence[UnreadRequest]) -> list[Output]:
    return [one.output for one in unread if one.output is not None and one.verdict is RequestVerdict.PUBLISH]


def _numbers(engine: Engine, scope: RedriveScope) -> list[int] | None:
    """The numbers of the entities that were named; None for all."""
    if not scope.ids:
        return None
    with _snapshot(engine) as tx:
        found = numbers_of(tx, scope.ids)
    missing = [id_text(one) for one in scope.ids if one not in found]
    # With --from-objects the very point may be that the database knows nothing of it yet.
    if missing and scope.since_ms is None:
        raise UnknownIds(f"no bulk or single transfer has the id {', '.join(missing)}")
    return list(found.values())


def _derive(
    engine: Engine, rows: RowDerivation, numbers: Sequence[int] | None, report: RedriveReport
) -> Iterator[Derived]:
    """What is owed, page by page; a page's transaction is over before it is published."""
    after = -1
    while True:
        with _snapshot(engine) as tx, _store_troubles():
            page = _open_page(tx, after, numbers)
            if page is None:
                break
            bulks, singles = rows.open_bulks(tx, page.bulks), rows.open_singles(tx, page.singles)
        report.bulks += len(page.bulks)
        report.singles += len(page.singles)
        yield bulks
        yield singles
        after = page.after
    yield from _derive_ended(engine, rows, numbers)


def _open_page(tx: Connection, after: int, numbers: Sequence[int] | None) -> OpenPage | None:
    if numbers is None:
        return open_page(tx, after, _ITEMS_PER_PAGE)
    left = sorted(number for number in numbers if number > after)[:_NAMED_PER_PAGE]
    return open_among(tx, left) if left else None


def _derive_ended(engine: Engine, rows: RowDerivation, numbers: Sequence[int] | None) -> Iterator[Derived]:
    if numbers is not None:
        with _snapshot(engine) as tx, _store_troubles():
            derived = rows.ended_bulks(tx, numbers), rows.ended_singles(tx, [single_key(one) for one in numbers])
        yield from derived
        return
    walks: tuple[tuple[_Walk, _DeriveKeys], ...] = (
        (ended_bulks, rows.ended_bulks),
        (all_singles, rows.ended_singles),
    )
    for walk, derive in walks:
        after = -1
        while True:
            with _snapshot(engine) as tx, _store_troubles():
                keys = walk(tx, after, _ROWS_PER_PAGE)
                if not keys:
                    break
                derived_page = derive(tx, keys)
            yield derived_page
            after = keys[-1]


_Walk = Callable[[Connection, int, int], list[int]]
_DeriveKeys = Callable[[Connection, Sequence[int]], Derived]


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """One moment of the database, read only."""
    with engine.connect() as connection:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        yield connection.execution_options(**options)


@contextmanager
def _store_troubles() -> Iterator[None]:
    try:
        yield
    except SlowDown as away:
        raise ObjectStoreUnavailable(str(away)) from away


@contextmanager
def _publisher(stream: Stream, *, is_dry_run: bool) -> Iterator[Callable[[Sequence[Output]], None]]:
    """Publishes and waits until it is kept; in a dry run nothing is opened."""
    producer: Producer | None = None if is_dry_run else stream.producer()

    def publish(outputs: Sequence[Output]) -> None:
        if producer is not None and outputs:
            producer.produce(frames(outputs, _FRAME_MESSAGES_MAX))
            producer.wait_for_acks(_ACKS_WAIT_MS)

    try:
        yield publish
    finally:
        if producer is not None:
            producer.close()


def _audit(engine: Engine, actor: str, scope: RedriveScope) -> None:
    facts: Mapping[str, object] = {
        "ids": [id_text(one) for one in scope.ids],
        "sinceMs": scope.since_ms,
    }
    with engine.begin() as tx:
        write_audit(tx, actor=actor, action="redrive", subject="redrive", before=None, after=dict(facts))
