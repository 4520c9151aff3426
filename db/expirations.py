"""What has not ended yet, and when it is due: one row per bulk and per single transfer, gone when it ends.

The timeout handler finds what is due here and nowhere else (no watermark that could skip one, D18; no join that could hide
one, D16), and the edge adds up what each payer has in flight (BULK-113, db/in_flight.py).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from db.documents import int_array

_END = text("DELETE FROM open_expiration WHERE number = ANY(CAST(:numbers AS bigint[]))")
# One statement for both kinds, each with its own bound, so that many of one do not keep the other waiting. Bulks are bounded
# by the items before them: the first one comes whatever its size.
_DUE = text("""
    SELECT number, is_single FROM (
        SELECT number, is_single, sum(item_count) OVER (ORDER BY due_date, number) - item_count AS items_before
        FROM (SELECT number, is_single, due_date, item_count
              FROM open_expiration WHERE NOT is_single AND due_date <= clock_timestamp()
              ORDER BY is_single, due_date LIMIT :items_max) AS due
    ) AS bulks WHERE items_before < :items_max
    UNION ALL
    (SELECT number, is_single FROM open_expiration WHERE is_single AND due_date <= clock_timestamp()
     ORDER BY is_single, due_date LIMIT :singles_max)
""")
_LOOK_AGAIN = text("""
    UPDATE open_expiration SET due_date = clock_timestamp() + make_interval(secs => :pause_ms / 1000.0)
    WHERE number = ANY(CAST(:numbers AS bigint[]))
""")


def end_expirations(tx: Connection, numbers: Sequence[int]) -> None:
    """These bulks and single transfers have ended: nothing is due of them any more."""
    tx.execute(_END, {"numbers": int_array(numbers)})


def due_numbers(tx: Connection, *, items_max: int, singles_max: int) -> tuple[list[int], list[int]]:
    """The keys of bulks, of about so many items, and the numbers of single transfers, that are past their time."""
    rows = tx.execute(_DUE, {"items_max": items_max, "singles_max": singles_max}).all()
    return [row[0] for row in rows if not row[1]], [row[0] for row in rows if row[1]]


def look_again(tx: Connection, numbers: Sequence[int], pause_ms: int) -> None:
    """Look at these again after a pause, unless they have ended by then."""
    tx.execute(_LOOK_AGAIN, {"numbers": int_array(numbers), "pause_ms": pause_ms})
