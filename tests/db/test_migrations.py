"""The migrations make what db/tables.py says, and the state tables say what domain/states.py says."""

from sqlalchemy import Engine, select

from db import tables
from db.migrate import differences
from domain.states import BULK_API_STATES, ItemState


def test_the_migrated_database_equals_the_tables(engine: Engine) -> None:
    assert differences(engine) == []


def test_state_tables_equal_the_domain(engine: Engine) -> None:  # BULK-56, BULK-57, BULK-47
    with engine.connect() as connection:
        bulk_states = connection.execute(select(tables.bulk_transfer_state)).all()
        item_states = connection.execute(select(tables.bulk_processing_state)).scalars().all()
    assert {row.bulk_transfer_state: row.enumeration for row in bulk_states} == dict(BULK_API_STATES)
    assert set(item_states) == set(ItemState)
