"""What the exporter tells Prometheus that no process can say of itself: lag, money, what is unfinished, what waits.

Read from the database and the stream every `collection_interval_ms`, on a thread per dependency, so that one that hangs
does not hide the others; a scrape is answered from what was read last and waits for nothing. A part that fails vanishes at
once, one that hangs after `collection_stale_ms`: an old figure looks like a healthy one. Then
`bulk_switch_collection_failures_total` grows, and `bulk_switch_dependency_up` says which dependency does not answer.

Amounts are floats here, exact up to 2**53 of the smallest unit: they are for watching. What is true stands in the database.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine

from db import watching
from db.slots import running_instances
from domain.combinations import TOPIC_BULK_PREPARE
from domain.states import BULK_TRANSITIONS, START, TRANSFER_TRANSITIONS
from object_store.content import content_key
from object_store.interface import ObjectStore
from operations.lag import read_dead_letters, read_lag
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX
from stream.interface import Stream

_log = logging.getLogger(__name__)

_DEPENDENCIES = ("database", "stream", "object_store")


@dataclass(frozen=True, slots=True)
class CollectionLimits:
    """How often, and for how long what was read holds; a part that takes longer than `wait_ms` per statement fails."""

    interval_ms: int = 10_000
    wait_ms: int = 5_000
    stale_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class _Part:
    """Something that is read at once. One named like a dependency says whether that answers."""

    name: str
    dependency: str
    read: Callable[[], list[Metric]]


@dataclass(frozen=True, slots=True)
class _Reading:
    read_s: float
    seconds: float
    metrics: Sequence[Metric]


class Collection(Collector):
    """Reads in the background while `running`; given to a registry, it tells what was read last."""

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        object_store: ObjectStore,
        limits: CollectionLimits,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._monotonic_s = monotonic_s
        self._parts = _parts(engine, stream, object_store, limits.wait_ms)
        # Replaced entry by entry, each by one thread; read by scrapes.
        self._readings: dict[str, _Reading] = {}
        self._stopping = threading.Event()
        self._failures = Counter(
            "bulk_switch_collection_failures",
            "Readings of the exporter that failed; what they would have told is missing meanwhile.",
            ["part"],
            registry=None,
        )
        for part in self._parts:
            self._failures.labels(part.name)

    def collect(self) -> Iterator[Metric]:
        yield from self._failures.collect()
        fresh = {name: reading for name, reading in list(self._readings.items()) if self._is_fresh(reading)}
        up = GaugeMetricFamily(
            "bulk_switch_dependency_up", "Whether it answered the exporter's last question.", labels=["dependency"]
        )
        seconds = GaugeMetricFamily(
            "bulk_switch_collection_seconds", "How long the last reading of a part took.", labels=["part"]
        )
        for dependency in _DEPENDENCIES:
            up.add_metric([dependency], float(dependency in fresh))
        for name, reading in fresh.items():
            seconds.add_metric([name], reading.seconds)
        yield up
        yield seconds
        for reading in fresh.values():
            yield from reading.metrics

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read until the end of the block; a thread that hangs then is left to the end of the process."""
        threads = [
            threading.Thread(target=self._run, args=(dependency,), name=f"collect-{dependency}", daemon=True)
            for dependency in _DEPENDENCIES
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(self._limits.wait_ms / 1000)

    def read_once(self, dependency: str) -> None:
        """Read every part of this dependency now."""
        for part in self._parts:
            if part.dependency == dependency and not self._stopping.is_set():
                self._read(part)

    def _run(self, dependency: str) -> None:
        while not self._stopping.is_set():
            self.read_once(dependency)
            self._stopping.wait(self._limits.interval_ms / 1000)

    def _read(self, part: _Part) -> None:
        began_s = self._monotonic_s()
        try:
            metrics = part.read()
        except Exception as error:
            # Whatever it is, the other parts are still told, and this one is missing where it is looked for.
            self._failures.labels(part.name).inc()
            if self._readings.pop(part.name, None) is not None or part.name in _DEPENDENCIES:
                _log.warning("%s cannot be read: %s", part.name, str(error).partition("\n")[0])
            return
        now_s = self._monotonic_s()
        self._readings[part.name] = _Reading(now_s, now_s - began_s, metrics)

    def _is_fresh(self, reading: _Reading) -> bool:
        return self._monotonic_s() - reading.read_s <= self._limits.stale_ms / 1000


def registry_of(collection: Collection) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collection)
    return registry


def _parts(engine: Engine, stream: Stream, object_store: ObjectStore, wait_ms: int) -> list[_Part]:
    def from_database(read: Callable[[Connection], list[Metric]]) -> Callable[[], list[Metric]]:
        def in_transaction() -> list[Metric]:
            with engine.connect().execution_options(postgresql_readonly=True) as tx:
                watching.limit_statements(tx, wait_ms)
                return read(tx)

        return in_transaction

    def database_answers(_: Connection) -> list[Metric]:
        return []

    def stream_answers() -> list[Metric]:
        stream.end_offsets(TOPIC_BULK_PREPARE)
        return []

    def object_store_answers() -> list[Metric]:
        object_store.exists(content_key(b""))
        return []

    return [
        _Part("database", "database", from_database(database_answers)),
        _Part("accounts", "database", from_database(_accounts)),
        _Part("bulks", "database", from_database(_bulks)),
        _Part("single_transfers", "database", from_database(_single_transfers)),
        _Part("payers", "database", from_database(_payers)),
        _Part("callbacks", "database", from_database(_callbacks)),
        _Part("instances", "database", from_database(_instances)),
        _Part("stream", "stream", stream_answers),
        _Part("lag", "stream", from_database(lambda tx: _lag(tx, stream))),
        _Part("dead_letters", "stream", lambda: _dead_letters(stream)),
        _Part("object_store", "object_store", object_store_answers),
    ]


def _accounts(tx: Connection) -> list[Metric]:
    figures = {
        "position": "What the participant owes, reservations included, in the currency's own unit.",
        "reserved": "What of the position is reserved for transfers without an end.",
        "cover": "What the participant has brought in: no reservation leaves a position above it.",
        "net_debit_cap": "The limit that was set: no reservation leaves a position above it.",
    }
    metrics = {
        name: GaugeMetricFamily(f"bulk_switch_{name}_amount", text, labels=["participant", "currency"])
        for name, text in figures.items()
    }
    for account in watching.watched_accounts(tx):
        for name, metric in metrics.items():
            if (amount := getattr(account, name)) is not None:
                metric.add_metric([account.participant, account.currency], float(amount))
    return list(metrics.values())


def _bulks(tx: Connection) -> list[Metric]:
    states = [state for state, later in BULK_TRANSITIONS.items() if later and state != START]
    return _open_entities("bulk", "Bulks", states, watching.open_bulks(tx))


def _single_transfers(tx: Connection) -> list[Metric]:
    states = [state for state, later in TRANSFER_TRANSITIONS.items() if later and state != START]
    return _open_entities("single_transfer", "Single transfers", states, watching.open_single_transfers(tx))


def _open_entities(
    name: str, title: str, states: Iterable[str], found: Sequence[watching.OpenEntities]
) -> list[Metric]:
    counts = GaugeMetricFamily(f"bulk_switch_{name}s_open", f"{title} that have not ended.", labels=["state"])
    ages = GaugeMetricFamily(
        f"bulk_switch_{name}_oldest_seconds", f"{title}: since when the oldest of a state is here.", labels=["state"]
    )
    overdue = GaugeMetricFamily(f"bulk_switch_{name}s_overdue", f"{title} that are past their expiration.")
    overdue_seconds = GaugeMetricFamily(
        f"bulk_switch_{name}_overdue_seconds", f"{title}: how far the oldest is past its expiration."
    )
    by_state = {one.state: one for one in found}
    for state in sorted({str(state) for state in (*states, *by_state)}):
        one = by_state.get(state)
        counts.add_metric([state], 0 if one is None else one.count)
        ages.add_metric([state], 0 if one is None else one.oldest_s)
    overdue.add_metric([], sum(one.overdue for one in found))
    overdue_seconds.add_metric([], max((one.overdue_s for one in found), default=0))
    return [counts, ages, overdue, overdue_seconds]


def _payers(tx: Connection) -> list[Metric]:
    metric = GaugeMetricFamily(
        "bulk_switch_transfers_open", "A payer's transfers without an end, which the edge bounds.", labels=["payer"]
    )
    for payer, count in sorted(watching.open_transfers_of_payers(tx).items()):
        metric.add_metric([payer], count)
    return [metric]


def _callbacks(tx: Connection) -> list[Metric]:
    counts = GaugeMetricFamily("bulk_switch_callbacks_waiting", "Callbacks not delivered yet.", labels=["fsp"])
    ages = GaugeMetricFamily(
        "bulk_switch_callback_oldest_seconds", "Since when the oldest of them waits.", labels=["fsp"]
    )
    for one in watching.waiting_callbacks(tx):
        counts.add_metric([one.fsp], one.count)
        ages.add_metric([one.fsp], one.oldest_s)
    return [counts, ages]


def _instances(tx: Connection) -> list[Metric]:
    metric = GaugeMetricFamily(
        "bulk_switch_handler_instances", "Instance numbers of a handler that are taken: its loops.", labels=["handler"]
    )
    handlers = [topic.consumer for topic in CATALOGUE.values() if not topic.name.endswith(DEAD_LETTER_SUFFIX)]
    running = running_instances(tx, [*handlers, "timeout"])
    for handler in (*handlers, "timeout"):
        metric.add_metric([handler], len(running.get(handler, ())))
    return [metric]


def _lag(tx: Connection, stream: Stream) -> list[Metric]:
    labels = ["handler", "topic", "partition"]
    records = GaugeMetricFamily("bulk_switch_lag_records", "Records that the handler has not read.", labels=labels)
    ages = GaugeMetricFamily("bulk_switch_lag_oldest_seconds", "Since when the oldest of them is there.", labels=labels)
    for row in read_lag(tx, stream, members=False):
        place = [row.handler, row.topic, str(row.partition)]
        records.add_metric(place, row.lag)
        if row.oldest_unread_age_ms is not None or not row.lag:
            # Where something is unread and was not found in time, nothing is told of its age.
            ages.add_metric(place, (row.oldest_unread_age_ms or 0) / 1000)
    return [records, ages]


def _dead_letters(stream: Stream) -> list[Metric]:
    metric = CounterMetricFamily(
        "bulk_switch_dead_letters", "Dead letters that a topic has ever been given.", labels=["topic"]
    )
    found = {one.topic: one.records for one in read_dead_letters(stream)}
    for topic in CATALOGUE:
        if topic.endswith(DEAD_LETTER_SUFFIX):
            metric.add_metric([topic], found.get(topic, 0))
    return [metric]
