"""No statement of a batch walks a table: whatever plan PostgreSQL caches, it is nested loops over indexes."""

import re
from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, event, text

from object_store.folder import FolderObjectStore
from schemas.topics import CATALOGUE
from stream.interface import TopicDescription
from stream.table import TableStream
from tests import singles
from tests.bulks import PAYEE, PAYER, answer, bulk, committed, item, provision, refused
from tests.flows.test_expiry import expire
from tests.pipeline import Pipeline

# A table of this many rows or fewer may be read whole: it holds participants, and never grows with the payments.
REFERENCE_TABLES = {"participant", "participant_currency", "participant_position", "participant_limit", "currency"}
_WALKS = re.compile(r"(Seq Scan|Hash Join|Hash (?:Semi|Anti|Left|Right) Join|Merge (?:Join|Anti|Semi|Left))[^\n]*")


def statements_of_a_life(engine: Engine, store: FolderObjectStore) -> dict[str, dict[str, Any]]:
    """Every statement with parameters that the lives of bulks and single transfers, expiries and questions make."""
    stream = TableStream(engine)
    stream.create_topics(TopicDescription(t.name, t.partitions, t.retention_ms) for t in CATALOGUE.values())
    provision(engine)
    seen: dict[str, dict[str, Any]] = {}

    def remember(_: object, clause: object, multiparams: Any, params: dict[str, Any], __: object) -> None:
        if isinstance(clause, TextClause) and params:
            seen.setdefault(clause.text, dict(params))

    event.listen(engine, "before_execute", remember)
    pipeline = Pipeline(engine, store, stream)
    items = [item(), item(), item("5", currency="EUR")]
    body = bulk(items, now_ms=pipeline.now())
    pipeline.post(body, source=PAYER)
    pipeline.run()
    pipeline.get(body["bulkTransferId"], source=PAYER)
    pipeline.put(body["bulkTransferId"], answer([committed(items[0]), refused(items[1])]), source=PAYEE)
    pipeline.run()
    pipeline.post(body, source=PAYER)
    pipeline.post(bulk([item()], now_ms=pipeline.now()), source=PAYER)
    pipeline.get("00000000-0000-4000-8000-000000000000", source=PAYER)
    pipeline.run()
    run_singles(pipeline)
    expire(engine)
    pipeline.tick()
    pipeline.run()
    event.remove(engine, "before_execute", remember)
    return seen


def run_singles(pipeline: Pipeline) -> None:
    """Single transfers that end in every way but by time, one that will, and the questions about them."""
    bodies = [singles.transfer(now_ms=pipeline.now()) for _ in range(5)]
    for body in bodies:
        singles.post(pipeline, body)
    singles.post(pipeline, singles.transfer("5", currency="EUR", now_ms=pipeline.now()))
    pipeline.run()
    committed_, reserved, failed, wrong, _ = bodies
    singles.put(pipeline, committed_["transferId"], singles.fulfilled(committed_))
    singles.put(pipeline, reserved["transferId"], singles.fulfilled(reserved, "RESERVED"))
    singles.put(pipeline, failed["transferId"], singles.failed())
    singles.put(pipeline, wrong["transferId"], {"transferState": "COMMITTED"})
    pipeline.run()
    singles.post(pipeline, committed_)
    singles.get(pipeline, committed_["transferId"], source=PAYER)
    singles.get(pipeline, "00000000-0000-4000-8000-000000000000", source=PAYER)
    pipeline.run()


@pytest.mark.parametrize("analyzed", [False, True])
def test_every_statement_is_an_index_walk_under_a_generic_plan(
    engine: Engine, object_store: FolderObjectStore, *, analyzed: bool
) -> None:
    """Both with the statistics of an empty table and with those of a full one (docs/decisions/0006)."""
    statements = statements_of_a_life(engine, object_store)
    assert len(statements) > 25
    _fill(engine, analyzed=analyzed)
    walks = []
    with engine.connect() as tx:
        tx.execute(text("SET plan_cache_mode = force_generic_plan"))
        for number, (statement, parameters) in enumerate(statements.items()):
            if not statement.lstrip().upper().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                continue
            names = list(parameters)
            prepared = text(statement).compile(dialect=engine.dialect).string
            for position, name in enumerate(names, start=1):
                prepared = re.sub(rf"%\({name}\)s(::\w+(\[\])?)?", f"${position}", prepared)
            tx.exec_driver_sql(f"PREPARE p{number} AS {prepared.replace('%%', '%')}")
            nulls = ", ".join(["NULL"] * len(names))
            arguments = f"({nulls})" if names else ""
            plan = "\n".join(row[0] for row in tx.exec_driver_sql(f"EXPLAIN EXECUTE p{number}{arguments}"))
            for walk in _WALKS.finditer(plan):
                table = re.search(r" on (\w+)", walk.group(0))
                if table is None or table.group(1) not in REFERENCE_TABLES:
                    walks.append(f"{' '.join(statement.split())[:90]}: {walk.group(0)}")
        tx.rollback()
    assert walks == []


def _fill(engine: Engine, *, analyzed: bool) -> None:
    """Many bulks' worth of items and steps, so that a walk would be the cheaper plan wherever it is allowed."""
    with engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO bulk_transfer_association (transfer_key, transfer_id, bulk_processing_state)"
                " SELECT 1000000 + n, gen_random_uuid(), 'COMPLETED' FROM generate_series(1, 20000) AS n"
            )
        )
        tx.execute(
            text(
                "INSERT INTO transfer (transfer_key, transfer_id, hash, amount, currency_id, expiration)"
                " SELECT 1000000 + n, gen_random_uuid(), '', 1, 'USD', now() FROM generate_series(1, 20000) AS n"
            )
        )
        tx.execute(
            text(
                "INSERT INTO single_transfer (transfer_key, payer_fsp, payee_fsp, request_id, received_date)"
                " SELECT 1000000 + n, 'a', 'b', gen_random_uuid(), now() FROM generate_series(1, 20000) AS n"
            )
        )
        tx.execute(
            text(
                "INSERT INTO single_transfer_fulfilment (transfer_key, request_id, hash, received_date)"
                " SELECT 1000000 + n, gen_random_uuid(), '', now() FROM generate_series(1, 20000) AS n"
            )
        )
        tx.execute(
            text(
                "INSERT INTO open_expiration (number, is_single, due_date, payer_fsp, item_count)"
                " SELECT 1000000 + n, n % 2 = 0, now() + interval '1 day', 'a', 1 FROM generate_series(1, 20000) AS n"
            )
        )
        tx.execute(
            text(
                "INSERT INTO transfer_state_change (transfer_key, from_state, to_state, reason)"
                " SELECT 1000000 + n, f, t, 'x' FROM generate_series(1, 20000) AS n,"
                " (VALUES ('-', 'RECEIVED_PREPARE'), ('RECEIVED_PREPARE', 'RESERVED'), ('RESERVED', 'RECEIVED_FULFIL'))"
                " AS s(f, t)"
            )
        )
    if analyzed:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
            tx.execute(text("ANALYZE"))
