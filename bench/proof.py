"""What must be true of the rows when a run is over: a figure for work that was not done right is no figure.

Every bulk is COMPLETED, every item COMPLETED, every transfer COMMITTED; each payer's position is the sum of what it paid
and each payee's its negative, so that all positions together are zero; one POST and two final callbacks were delivered per
bulk, and nothing else was.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from domain.money import format_amount, from_numeric

_DELIVERED_WAIT_S = 15.0
_POLL_S = 0.05

_CURRENT_BULKS = """
    SELECT s.to_state, count(*) FROM bulk_transfer b JOIN bulk_transfer_state_change s USING (bulk_key)
    WHERE NOT EXISTS (SELECT FROM bulk_transfer_state_change n
                      WHERE n.bulk_key = s.bulk_key AND n.from_state = s.to_state)
    GROUP BY 1
"""
_ITEMS = "SELECT bulk_processing_state, count(*) FROM bulk_transfer_association GROUP BY 1"
_CURRENT_TRANSFERS = """
    SELECT s.to_state, count(*) FROM transfer t JOIN transfer_state_change s USING (transfer_key)
    WHERE NOT EXISTS (SELECT FROM transfer_state_change n
                      WHERE n.transfer_key = s.transfer_key AND n.from_state = s.to_state)
    GROUP BY 1
"""
_CALLBACKS = """
    SELECT kind || ' ' || state, count(*) FROM delivery GROUP BY 1
"""
_POSITIONS = """
    SELECT participant.name, position.value
    FROM participant JOIN participant_currency AS account USING (participant_id)
    JOIN participant_position AS position USING (participant_currency_id)
    WHERE account.ledger_account_type = 'POSITION'
"""
_WAITING = "SELECT count(*) FROM delivery WHERE state = 'WAITING'"

# What every bulk writes, whoever writes it. A bulk's own steps are not among them: PENDING_FULFIL depends on how the news
# about its items are cut into batches.
_COUNTED = (
    "bulk_transfer",
    "bulk_transfer_duplicate_check",
    "bulk_transfer_association",
    "transfer",
    "transfer_state_change",
    "bulk_transfer_fulfilment",
    "bulk_transfer_fulfilment_duplicate_check",
    "bulk_transfer_result",
    "delivery",
    "delivery_attempt",
)


@dataclass(frozen=True, slots=True)
class Expected:
    """`positions` are those of all FSPs, in counts of 1/10,000."""

    bulks: int
    items: int
    positions: Mapping[str, int]


def faults_in(engine: Engine, expected: Expected) -> list[str]:
    """What is not as it should be; waits a moment for the deliverer to write down what it has delivered."""
    transfers = expected.bulks * expected.items
    wanted = {
        "bulks": (_CURRENT_BULKS, {"COMPLETED": expected.bulks}),
        "items": (_ITEMS, {"COMPLETED": transfers}),
        "transfers": (_CURRENT_TRANSFERS, {"COMMITTED": transfers}),
        "callbacks": (_CALLBACKS, {"FORWARD DELIVERED": expected.bulks, "FINAL DELIVERED": 2 * expected.bulks}),
    }
    with engine.connect() as tx:
        tx = tx.execution_options(isolation_level="AUTOCOMMIT")
        _wait_until_delivered(tx)
        faults = []
        for what, (statement, counts) in wanted.items():
            found = {row[0]: row[1] for row in tx.execute(text(statement))}
            if found != counts:
                faults.append(f"{what} are {found}, not {counts}")
        positions = {name: from_numeric(value) for name, value in tx.execute(text(_POSITIONS))}
    for name, position in expected.positions.items():
        if positions[name] != position:
            faults.append(f"{name}'s position is {format_amount(positions[name])}, not {format_amount(position)}")
    if sum(positions.values()):
        faults.append(f"all positions together are {format_amount(sum(positions.values()))}, not 0")
    return faults


def _wait_until_delivered(tx: Connection) -> None:
    deadline = time.monotonic() + _DELIVERED_WAIT_S
    while tx.execute(text(_WAITING)).scalar_one() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def rows_per_bulk(engine: Engine, bulks: int) -> dict[str, float]:
    """How many rows a bulk has in each table, on average."""
    with engine.connect() as tx:
        return {table: tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() / bulks for table in _COUNTED}
