"""An offset means something in its own log only: what a handler checks before it reads on from the one it has stored."""

from collections.abc import Iterable

from db.progress import Progress
from handlers.handler import Crash


def require_same_log(handler: str, topic: str, rows: Iterable[Progress], log_id: str | None) -> None:
    """Raise Crash unless every row's offset belongs to this log; None says that nothing is known of one (the clock)."""
    if log_id is None:
        return
    for row in rows:
        if row.log_id not in (None, log_id):
            raise Crash(
                f"{handler}: {topic} began anew: partition {row.partition} was read up to offset {row.next_offset} of the "
                f"log {row.log_id}, and the log that is there now is {log_id}. Nothing was read from it. Two ways on: put "
                "the old log back (does the URL lead to another cluster?), or stop all handlers and run "
                "`bulk-switch redrive --new-log`, which begins the new log and sends again what its entities wait for"
            )
