"""PostgreSQL's clock is in milliseconds that have begun."""

import pytest
from sqlalchemy import Engine, text

from db.clock import now_ms

NOW_MS = 1_795_256_130_123


@pytest.mark.parametrize("microseconds", [0, 499, 500, 999])
def test_a_millisecond_that_has_not_begun_is_not_now(engine: Engine, microseconds: int) -> None:
    with engine.connect() as tx:
        # Found before PostgreSQL's own.
        tx.execute(text("CREATE SCHEMA stopped"))
        tx.execute(
            text(
                "CREATE FUNCTION stopped.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
                f" 'SELECT timestamptz ''epoch'' + {NOW_MS * 1000 + microseconds} * interval ''1 microsecond'''"
            )
        )
        tx.execute(text("SET LOCAL search_path = stopped, pg_catalog"))
        stopped = tx.execute(
            text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
        ).scalar_one()
        assert stopped == NOW_MS * 1000 + microseconds
        assert now_ms(tx) == NOW_MS
