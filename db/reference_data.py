"""The rows that every database has from the start: states, ledger account types, currencies, and the hub itself.

Written after every migration, each row only where it is missing or differs, so that a release can add to them. The state
tables are for people who read the database with SQL; a test keeps them equal to domain/states.py.
"""

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from db import tables
from db.currencies import CURRENCIES
from domain.states import BULK_API_STATES, ItemState

HUB_NAME = "Hub"

LEDGER_ACCOUNT_TYPES = (
    ("POSITION", "What a participant owes or is owed by the others", True),
    ("SETTLEMENT", "What a participant has brought in; its value falls when money comes in", False),
    ("HUB_RECONCILIATION", "The hub's side of funds in and out", False),
    ("HUB_MULTILATERAL_SETTLEMENT", "The hub's side of a settlement", False),
    ("INTERCHANGE_FEE", "Interchange fees of a participant", True),
    ("INTERCHANGE_FEE_SETTLEMENT", "Settlement of interchange fees", False),
)


def write_reference_data(connection: Connection) -> None:
    """Upsert all reference rows in the caller's transaction."""
    states = insert(tables.bulk_transfer_state).values(
        [{"bulk_transfer_state": state, "enumeration": shown} for state, shown in BULK_API_STATES.items()]
    )
    connection.execute(
        states.on_conflict_do_update(
            index_elements=["bulk_transfer_state"], set_={"enumeration": states.excluded.enumeration}
        )
    )
    connection.execute(
        insert(tables.bulk_processing_state)
        .values([{"bulk_processing_state": state} for state in ItemState])
        .on_conflict_do_nothing()
    )
    connection.execute(
        insert(tables.ledger_account_type)
        .values(
            [
                {"ledger_account_type": name, "description": text, "is_settleable": settleable}
                for name, text, settleable in LEDGER_ACCOUNT_TYPES
            ]
        )
        .on_conflict_do_nothing()
    )
    currencies = insert(tables.currency).values(
        [{"currency_id": code, "name": name, "scale": scale} for code, name, scale in CURRENCIES]
    )
    connection.execute(
        currencies.on_conflict_do_update(
            index_elements=["currency_id"],
            set_={"name": currencies.excluded.name, "scale": currencies.excluded.scale},
        )
    )
    connection.execute(insert(tables.participant).values(name=HUB_NAME, created_by="migrate").on_conflict_do_nothing())
