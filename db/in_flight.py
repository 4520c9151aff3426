"""What each payer has in flight, for the edge's bound (BULK-113): read in one snapshot, so that the parts agree.

A handler writes the row of what it has accepted and its progress in one transaction. Read together, a request is found
either among what is open or as not yet read; it is never missing from both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, text

_TIMEOUT = text("SELECT set_config('statement_timeout', :wait_ms, true)")
_PARTICIPANTS = text("SELECT name FROM participant")
_OPEN_ITEMS = text("SELECT payer_fsp, sum(item_count) FROM open_expiration GROUP BY payer_fsp")
_NEXT_OFFSETS = text("""
    SELECT topic, partition, next_offset FROM handler_progress
    JOIN unnest(CAST(:handlers AS text[]), CAST(:topics AS text[])) AS wanted(handler, topic) USING (handler, topic)
""")


@dataclass(frozen=True, slots=True)
class InFlightFigures:
    """Of one moment: who takes part, the items of each payer's unfinished bulks and transfers, how far handlers have read.

    `next_offsets` is by topic and partition; one that was never read is missing.
    """

    participants: frozenset[str]
    open_items: Mapping[str, int]
    next_offsets: Mapping[tuple[str, int], int]


def in_flight_figures(engine: Engine, handlers: Sequence[tuple[str, str]], wait_ms: int) -> InFlightFigures:
    """The figures, and the progress of these (handler, topic) pairs; each statement takes `wait_ms` at most."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        connection.execute(_TIMEOUT, {"wait_ms": str(wait_ms)})
        progress = {"handlers": [handler for handler, _ in handlers], "topics": [topic for _, topic in handlers]}
        return InFlightFigures(
            participants=frozenset(connection.execute(_PARTICIPANTS).scalars()),
            open_items={row[0]: int(row[1]) for row in connection.execute(_OPEN_ITEMS)},
            next_offsets={(row[0], row[1]): row[2] for row in connection.execute(_NEXT_OFFSETS, progress)},
        )
