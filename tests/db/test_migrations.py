"""The migrations make what db/tables.py says, and the state tables say what domain/states.py says."""

import re

from sqlalchemy import Engine, inspect, select

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


def test_the_bulk_tables_keep_the_names_of_the_seed(engine: Engine) -> None:
    """BULK-48…57: seed 002 §4.2, in snake_case."""
    seed = [
        "bulkTransfer",
        "bulkTransferStateChange",
        "bulkTransferError",
        "bulkTransferDuplicateCheck",
        "bulkTransferFulfilment",
        "bulkTransferFulfilmentDuplicateCheck",
        "bulkTransferAssociation",
        "bulkTransferExtension",
        "bulkTransferState",
        "bulkProcessingState",
    ]
    wanted = {re.sub(r"(?=[A-Z])", "_", name).lower() for name in seed}
    assert wanted <= set(inspect(engine).get_table_names())
