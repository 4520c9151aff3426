"""PostgreSQL's clock: the one clock by which expiry is judged, however many machines handle a bulk."""

from sqlalchemy import Connection, text

# A millisecond counts from when it has begun: rounded, it would be there up to half a one early, and a transfer would be
# expired for us that is not for `now()`. Stored times are whole milliseconds, which rounding gives back as they were.
_NOW = text("SELECT CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)")


def now_ms(tx: Connection) -> int:
    """Milliseconds since 1970, at this moment (not at the transaction's begin, which may lie before a long wait)."""
    value: int = tx.execute(_NOW).scalar_one()
    return value
