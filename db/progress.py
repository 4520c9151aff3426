"""handler_progress: how far each handler has read each partition, with the outputs of its last batch (architecture §4).

A row remembers which log its offset belongs to (`log_id`, as the stream names it). Rows that were written before it was
remembered are NULL there, and are taken for the log that is there when they are first loaded with one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Progress:
    """`next_offset` is the next one to read; `outputs` are the encoded outputs of the batch before it, if not cleared.

    `log_id` names the log that the offset belongs to.
    """

    partition: int
    next_offset: int
    outputs: bytes | None
    log_id: str | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """A partition's progress: from the offset this owner stored last to the next one to read."""

    partition: int
    first_offset: int
    next_offset: int
    read_ms: int


_ENSURE = text("""
    INSERT INTO handler_progress (handler, topic, partition, next_offset, log_id)
    SELECT :handler, :topic, p, 0, CAST(:log_id AS text) FROM unnest(CAST(:partitions AS int[])) AS p
    ON CONFLICT (handler, topic, partition) DO UPDATE SET log_id = excluded.log_id
    WHERE handler_progress.log_id IS NULL AND excluded.log_id IS NOT NULL
""")

_LOAD = text("""
    SELECT partition, next_offset, outputs, log_id FROM handler_progress
    WHERE handler = :handler AND topic = :topic AND partition = ANY(CAST(:partitions AS int[]))
""")

_ADVANCE = text("""
    UPDATE handler_progress AS p
    SET next_offset = a.next_offset, changed_date = now(), read_date = to_timestamp(a.read_ms / 1000.0),
        outputs = CASE WHEN a.partition = :journal_partition THEN CAST(:outputs AS bytea) END
    FROM unnest(CAST(:partitions AS int[]), CAST(:first_offsets AS bigint[]), CAST(:next_offsets AS bigint[]),
                CAST(:read_ms AS bigint[])) AS a(partition, first_offset, next_offset, read_ms)
    WHERE p.handler = :handler AND p.topic = :topic AND p.partition = a.partition AND p.next_offset = a.first_offset
""")

_CLEAR = text("""
    UPDATE handler_progress AS p SET outputs = NULL, changed_date = now()
    FROM unnest(CAST(:partitions AS int[]), CAST(:next_offsets AS bigint[])) AS a(partition, next_offset)
    WHERE p.handler = :handler AND p.topic = :topic AND p.partition = a.partition
      AND p.next_offset = a.next_offset AND p.outputs IS NOT NULL
""")

_READ_TIMES = text("""
    SELECT partition, CAST(extract(epoch FROM read_date) * 1000 AS bigint)
    FROM handler_progress WHERE handler = :handler AND topic = :topic AND read_date IS NOT NULL
""")


def load_progress(
    tx: Connection, handler: str, topic: str, partitions: Sequence[int], log_id: str | None = None
) -> list[Progress]:
    """The rows of these partitions; a partition that was never read begins at offset 0, never at the end.

    `log_id` is the log that is there now: a row that names none yet takes it; one that names another keeps that.
    """
    parameters = {"handler": handler, "topic": topic, "partitions": list(partitions), "log_id": log_id}
    tx.execute(_ENSURE, parameters)
    return [Progress(*row) for row in tx.execute(_LOAD, parameters).all()]


def advance(tx: Connection, handler: str, topic: str, advances: Sequence[Advance], outputs: bytes | None) -> int:
    """Store the progress of a batch, its outputs in the row of the first partition.

    Returns how many rows were still at their first offset (fewer: fenced).
    """
    result = tx.execute(
        _ADVANCE,
        {
            "handler": handler,
            "topic": topic,
            "partitions": [one.partition for one in advances],
            "first_offsets": [one.first_offset for one in advances],
            "next_offsets": [one.next_offset for one in advances],
            "journal_partition": advances[0].partition,
            "outputs": outputs,
            "read_ms": [one.read_ms for one in advances],
        },
    )
    return result.rowcount


def clear_outputs(tx: Connection, handler: str, topic: str, next_offsets: Iterable[tuple[int, int]]) -> None:
    """Forget the outputs of partitions that still stand at these offsets: they are acknowledged."""
    pairs = list(next_offsets)
    tx.execute(
        _CLEAR,
        {
            "handler": handler,
            "topic": topic,
            "partitions": [partition for partition, _ in pairs],
            "next_offsets": [offset for _, offset in pairs],
        },
    )


def read_times_ms(tx: Connection, handler: str, topic: str) -> dict[int, int]:
    """Per partition the producer's clock on the last record that the handler has read."""
    return {row[0]: row[1] for row in tx.execute(_READ_TIMES, {"handler": handler, "topic": topic}).all()}


# ---------------------------------------------------------------------------------------------------------------------
# A log that began anew (operations/new_log.py).

_ROWS_OF_TOPICS = text("""
    SELECT handler, topic, partition, next_offset, log_id, outputs IS NOT NULL
    FROM handler_progress WHERE topic = ANY(CAST(:topics AS text[])) ORDER BY handler, topic, partition
""")
_OUTPUTS = text("""
    SELECT outputs FROM handler_progress WHERE handler = :handler AND topic = :topic AND partition = :partition
""")
_BEGIN_ANEW = text("""
    UPDATE handler_progress SET next_offset = :next_offset, log_id = :log_id, outputs = NULL, changed_date = now()
    WHERE handler = :handler AND topic = :topic AND partition = :partition
""")
_PASS_OVER = text("""
    INSERT INTO handler_progress (handler, topic, partition, next_offset, log_id)
    SELECT :handler, :topic, e.partition, e.next_offset, :log_id
    FROM unnest(CAST(:partitions AS int[]), CAST(:ends AS bigint[])) AS e(partition, next_offset)
    ON CONFLICT (handler, topic, partition) DO UPDATE
    SET next_offset = greatest(handler_progress.next_offset, excluded.next_offset), changed_date = now()
""")
_FORGET = text("""
    DELETE FROM handler_progress WHERE handler = :handler AND topic = :topic AND partition = :partition
""")


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """A row as operators see it."""

    handler: str
    topic: str
    partition: int
    next_offset: int
    log_id: str | None
    has_outputs: bool


def progress_rows(tx: Connection, topics: Sequence[str]) -> list[ProgressRow]:
    """All rows of these topics."""
    return [ProgressRow(*row) for row in tx.execute(_ROWS_OF_TOPICS, {"topics": list(topics)})]


def stored_outputs(tx: Connection, row: ProgressRow) -> bytes | None:
    outputs: bytes | None = tx.execute(_OUTPUTS, _place(row)).scalar_one_or_none()
    return outputs


def begin_anew(tx: Connection, row: ProgressRow, next_offset: int | None, log_id: str) -> None:
    """Let the row begin at an offset of another log, without outputs; None: the partition is not there any more."""
    if next_offset is None:
        tx.execute(_FORGET, _place(row))
    else:
        tx.execute(_BEGIN_ANEW, _place(row) | {"next_offset": next_offset, "log_id": log_id})


def pass_over(tx: Connection, handler: str, topic: str, ends: Mapping[int, int], log_id: str) -> None:
    """Let the handler begin at these offsets, partition by partition; never before where it stands. Outputs stay."""
    parameters = {"partitions": list(ends), "ends": list(ends.values())}
    tx.execute(_PASS_OVER, {"handler": handler, "topic": topic, "log_id": log_id} | parameters)


def _place(row: ProgressRow) -> dict[str, object]:
    return {"handler": row.handler, "topic": row.topic, "partition": row.partition}
