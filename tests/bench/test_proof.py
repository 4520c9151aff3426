"""The proof finds what was not done, and the limit's writes are the rows that a bulk has when it was done right."""

import time

import pytest
from sqlalchemy import Engine, text

from bench.fsps import CURRENCY, amount_of
from bench.limit_bulk import PROGRESS_ROWS, Pair, make_bulk, write_bulk_rows, write_first_phase, write_second_phase
from bench.proof import Expected, faults_in, rows_per_bulk
from bulk_api_adapter.admin.provision import provision_fsp
from db.accounts import POSITION
from db.progress import load_progress

ITEMS = 20


def _pair(engine: Engine) -> Pair:
    accounts = []
    for name in ("payer", "payee"):
        details = provision_fsp(engine, name, CURRENCY, 10**12, 0, {})
        accounts += [one.account_id for one in details.accounts if one.ledger_account_type == POSITION]
    with engine.begin() as tx:
        for handler, topic in PROGRESS_ROWS:
            load_progress(tx, handler, topic, [0])
    return Pair(0, "payer", "payee", *accounts)


@pytest.fixture
def written(engine: Engine) -> Engine:
    """Two bulks by the writes of the database limit, their callbacks delivered."""
    pair, now_ms, position = _pair(engine), time.time_ns() // 1_000_000, 0
    with engine.begin() as tx:
        keys = write_bulk_rows(tx, pair, 2, ITEMS, now_ms)
    for number, (bulk_key, bulk_transfer_id) in enumerate(keys):
        bulk = make_bulk(pair, bulk_key, bulk_transfer_id, ITEMS, position, now_ms)
        position = bulk.payer_position
        with engine.begin() as tx:
            write_first_phase(tx, pair, bulk, number)
            write_second_phase(tx, pair, bulk, number)
    with engine.begin() as tx:
        tx.execute(text("UPDATE delivery SET state = 'DELIVERED'"))
    return engine


def _expected() -> Expected:
    return Expected(2, ITEMS, {"payer": 2 * amount_of(ITEMS), "payee": -2 * amount_of(ITEMS)})


def test_the_limits_writes_are_whole_bulks(written: Engine) -> None:
    assert faults_in(written, _expected()) == []
    rows = rows_per_bulk(written, 2)
    assert rows["transfer_state_change"] == 4 * ITEMS
    assert rows["transfer"] == rows["bulk_transfer_association"] == ITEMS
    assert rows["delivery"] == 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("DELETE FROM bulk_transfer_state_change WHERE to_state = 'COMPLETED' AND bulk_key = 1", "bulks are"),
        (
            "UPDATE bulk_transfer_association SET bulk_processing_state = 'REJECTED' WHERE transfer_key = 10001",
            "items are",
        ),
        ("DELETE FROM transfer_state_change WHERE transfer_key = 10001 AND to_state = 'COMMITTED'", "transfers are"),
        ("UPDATE participant_position SET value = value + 1 WHERE value > 0", "payer's position is"),
        ("UPDATE participant_position SET value = value + 1 WHERE value > 0", "all positions together are 1"),
        ("UPDATE delivery SET state = 'DEAD' WHERE kind = 'FORWARD'", "callbacks are"),
        ("DELETE FROM delivery WHERE kind = 'FINAL' AND fsp = 'payer'", "callbacks are"),
    ],
)
def test_every_fault_is_found(written: Engine, change: str, fault: str) -> None:
    with written.begin() as tx:
        assert tx.execute(text(change)).rowcount > 0
    faults = faults_in(written, _expected())
    assert any(one.startswith(fault) for one in faults), faults
