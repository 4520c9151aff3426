"""Time limits that run out when a test says so: a slow machine then reaches none of them too early."""

from sqlalchemy import Engine, text

_PAST = "now() - interval '1 second'"


def end_its_time(engine: Engine, bulk_transfer_id: str) -> None:
    """Move one bulk's time limits into the past, as if the clock had gone on for it alone; handlers may run meanwhile."""
    # The bulk is locked first, as handlers do it: in another order the two might wait for each other.
    lock = "SELECT bulk_key FROM bulk_transfer WHERE bulk_transfer_id = :id FOR NO KEY UPDATE"
    with engine.begin() as tx:
        key = tx.execute(text(lock), {"id": bulk_transfer_id}).scalar_one()
        for change in (
            f"UPDATE bulk_transfer SET expiration = {_PAST} WHERE bulk_key = :key",
            f"UPDATE transfer SET expiration = {_PAST} WHERE transfer_key / 10000 = :key",
            f"UPDATE open_expiration SET due_date = {_PAST} WHERE number = :key",
        ):
            tx.execute(text(change), {"key": key})
