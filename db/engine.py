"""How to reach the database: one engine per process, with the settings that the statements of this package rely on.

Whatever libpq understands may stand in the URL: TLS (`sslmode=verify-full&sslrootcert=…`), a client certificate, several
hosts. A password is better given beside it; inside it stays what SQLAlchemy and psycopg never print.

A server that vanishes without a word (its machine, or a firewall between) must not hold a process for the two hours of
TCP's own defaults: a question that nobody acknowledges, or a connection over which nothing comes, fails within half a
minute, and the caller's retry takes a new connection. What the URL says about it stands above what is said here.
"""

from typing import Any

from sqlalchemy import Engine, create_engine, make_url

# A batch's statements are index walks by design. A plan that was cached while a table was small, or a generic one that
# knows nothing of the keys, would scan or merge a whole table until the next ANALYZE, and cost O(table) per batch: so
# sequential scans, hash joins and merge joins are priced out, which leaves nested loops over indexes. JIT is off because
# compiling costs more than any of these statements. docs/decisions/0006 has what was measured.
_PLANS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off -c timezone=UTC"
# The server's side of the same patience: a machine of ours that vanishes in a transaction must not keep its locks.
_KEEPALIVES = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
_OPTIONS = f"{_PLANS} {_KEEPALIVES}"

# Seconds, and one in milliseconds, as libpq has it: 10 s of silence, then three questions 5 s apart; 20 s for an
# acknowledgement. A server that works for longer on one statement is not affected: its machine still answers TCP.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def make_engine(url: str, *, application_name: str, pool_size: int = 5, password: str = "") -> Engine:
    """An engine on psycopg for `postgresql://…` or `postgresql+psycopg://…`; READ COMMITTED, as PostgreSQL's default.

    `password` is for a URL that has none. Read Committed is what the handlers are written for: each statement sees what
    was committed before it began, and a lock that was waited for is followed by a statement of its own that reads what
    the other one wrote.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError("the database URL must begin with postgresql://")
    place = make_url(f"postgresql+psycopg://{rest}")
    if password:
        place = place.set(password=password)
    patience = {name: value for name, value in _PATIENCE.items() if name not in place.query}
    return create_engine(
        place.update_query_dict(patience),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=False,
        connect_args={"application_name": application_name, "options": _OPTIONS},
        # A batch's values are identities and amounts of payments, and no business of a log.
        hide_parameters=True,
    )


def connection_parameters(engine: Engine) -> dict[str, Any]:
    """What psycopg needs for a connection of its own beside the engine's pool, password and TLS included."""
    return dict(engine.dialect.create_connect_args(engine.url)[1])
