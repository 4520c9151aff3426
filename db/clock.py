"""PostgreSQL's clock: the one clock by which expiry is judged, however many machines handle a bulk."""

from sqlalchemy import Connection, text

_NOW = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)")


def now_ms(tx: Connection) -> int:
    """Milliseconds since 1970, at this moment (not at the transaction's begin, which may lie before a long wait)."""
    value: int = tx.execute(_NOW).scalar_one()
    return value
