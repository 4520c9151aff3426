"""handler_progress: how far each handler has read each partition, with the outputs of its last batch (architecture §4)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Progress:
    """`next_offset` is the next one to read; `outputs` are the encoded outputs of the batch before it, if not cleared."""

    partition: int
    next_offset: int
    outputs: bytes | None


@dataclass(frozen=True, slots=True)
class Advance:
    """A partition's progress: from the offset this owner stored last to the next one to read."""

    partition: int
    first_offset: int
    next_offset: int
    read_ms: int


_ENSURE = text("""
    INSERT INTO handler_progress (handler, topic, partition, next_offset)
    SELECT :handler, :topic, p, 0 FROM unnest(CAST(:partitions AS int[])) AS p
    ON CONFLICT DO NOTHING
""")

_LOAD = text("""
    SELECT partition, next_offset, outputs FROM handler_progress
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


def load_progress(tx: Connection, handler: str, topic: str, partitions: Sequence[int]) -> list[Progress]:
    """The rows of these partitions; a partition that was never read begins at offset 0, never at the end."""
    parameters = {"handler": handler, "topic": topic, "partitions": list(partitions)}
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
