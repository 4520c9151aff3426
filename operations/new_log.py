"""A log that began anew: the progress rows of its readers begin with it, and nothing that they had stored is lost.

A topic that was deleted and made again, or a cluster that was set up anew, is another log (`Stream.log_id`). Handlers stop
when they find one, because the offset they have stored means nothing in it. `bulk-switch redrive --new-log` lets them go on:

    1. every handler must be stopped, which their instance slots tell; who runs would write his old offset again
    2. a row begins anew when it names another log than the one that is there, when its offset lies outside the log that is
       there (trimmed, or cut off by an unclean election), or when its partition is not there any more
    3. the outputs stored in such rows are produced and acknowledged: they were decided, and some of them are derived from
       nothing else (the answer to a GET); whoever has read them before drops them by state
    4. then, in one transaction with an audit row, the rows begin at the new log's oldest record, without outputs; rows of
       partitions that are gone go with them

The log's oldest record, because whatever stands in a new log was written for whoever reads it: the edge may have gone on.
Killed in between, the same is done again by the next run. What was lost with the old log is redrive's to derive.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Engine

from db.audit import write_audit
from db.progress import ProgressRow, begin_anew, progress_rows, stored_outputs
from db.slots import running_instances
from handlers import journal
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX, Topic
from stream.interface import Stream

_ACKS_WAIT_MS = 30_000
# A handler that has ended holds its number until the server has seen its connection end: milliseconds, and more when busy.
_PATIENCE_S = 2.0
_ASK_EVERY_S = 0.1


class HandlersRun(Exception):
    """Handlers run that must be stopped first; the text names them."""


@dataclass(frozen=True, slots=True)
class NewLogRow:
    """A progress row that begins anew, and where; `next_offset` is None where its partition is not there any more."""

    handler: str
    topic: str
    partition: int
    old_log: str | None
    old_offset: int
    log: str
    next_offset: int | None
    has_outputs: bool


def require_stopped(engine: Engine) -> None:
    """Raise HandlersRun while any handler of the catalogue runs, the clock's included; one may just have ended."""
    deadline = time.monotonic() + _PATIENCE_S
    while (running := _running(engine)) and time.monotonic() < deadline:
        time.sleep(_ASK_EVERY_S)
    if running:
        named = ", ".join(f"{name} ({', '.join(map(str, numbers))})" for name, numbers in running.items())
        raise HandlersRun(f"stop every handler first; these run (and their instance numbers): {named}")


def _running(engine: Engine) -> dict[str, list[int]]:
    handlers = {topic.consumer for topic in _work_topics()} | {"timeout"}
    with engine.connect() as tx:
        return running_instances(tx, sorted(handlers))


def find_new_logs(engine: Engine, stream: Stream) -> list[NewLogRow]:
    """The rows whose offsets mean nothing in the logs that are there; raises UnknownTopic where a topic is missing."""
    topics = [topic.name for topic in _work_topics()]
    with engine.connect() as tx:
        rows = progress_rows(tx, topics)
    return [
        found for topic in topics for found in _of_topic(stream, topic, [one for one in rows if one.topic == topic])
    ]


def begin_new_logs(engine: Engine, stream: Stream, rows: Iterable[NewLogRow], *, actor: str) -> None:
    """Steps 1, 3 and 4 of the module's docstring; raises HandlersRun, StreamUnavailable."""
    require_stopped(engine)
    rows = list(rows)
    _produce_stored_outputs(engine, stream, rows)
    with engine.begin() as tx:
        for row in rows:
            begin_anew(tx, _progress_row(row), row.next_offset, row.log)
            write_audit(
                tx,
                actor=actor,
                action="begin_new_log",
                subject=f"{row.handler} {row.topic}/{row.partition}",
                before={"log": row.old_log, "nextOffset": row.old_offset},
                after={"log": row.log, "nextOffset": row.next_offset},
            )


def _work_topics() -> list[Topic]:
    return [topic for topic in CATALOGUE.values() if not topic.name.endswith(DEAD_LETTER_SUFFIX)]


def _of_topic(stream: Stream, topic: str, rows: list[ProgressRow]) -> Iterator[NewLogRow]:
    log_id, starts, ends = stream.log_id(topic), stream.start_offsets(topic), stream.end_offsets(topic)
    for row in rows:
        start, end = starts.get(row.partition), ends.get(row.partition)
        if start is not None and end is not None:
            is_same_log = row.log_id in (None, log_id)
            if is_same_log and start <= row.next_offset <= end:
                continue
        yield NewLogRow(row.handler, topic, row.partition, row.log_id, row.next_offset, log_id, start, row.has_outputs)


def _produce_stored_outputs(engine: Engine, stream: Stream, rows: list[NewLogRow]) -> None:
    """A row's outputs at a time; a journal is as large as a batch's outputs may be."""
    producer = stream.producer()
    try:
        for row in rows:
            if not row.has_outputs:
                continue
            with engine.connect() as tx:
                outputs = stored_outputs(tx, _progress_row(row))
            if outputs is not None:
                producer.produce(journal.unpack(outputs))
                producer.wait_for_acks(_ACKS_WAIT_MS)
    finally:
        producer.close()


def _progress_row(row: NewLogRow) -> ProgressRow:
    return ProgressRow(row.handler, row.topic, row.partition, row.old_offset, row.old_log, row.has_outputs)
