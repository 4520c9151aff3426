"""How to reach the database: one engine per process, with the settings that the statements of this package rely on."""

from sqlalchemy import Engine, create_engine

# A batch's statements are index walks by design. A plan that was cached while a table was small, or a generic one that
# knows nothing of the keys, would scan or merge a whole table until the next ANALYZE, and cost O(table) per batch: so
# sequential scans, hash joins and merge joins are priced out, which leaves nested loops over indexes. JIT is off because
# compiling costs more than any of these statements. docs/decisions/0006 has what was measured.
_OPTIONS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off -c timezone=UTC"


def make_engine(url: str, *, application_name: str, pool_size: int = 5) -> Engine:
    """An engine on psycopg for `postgresql://…` or `postgresql+psycopg://…`; READ COMMITTED, as PostgreSQL's default.

    Read Committed is what the handlers are written for: each statement sees what was committed before it began, and a
    lock that was waited for is followed by a statement of its own that reads what the other one wrote.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError("the database URL must begin with postgresql://")
    return create_engine(
        f"postgresql+psycopg://{rest}",
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=False,
        connect_args={"application_name": application_name, "options": _OPTIONS, "connect_timeout": 10},
    )
