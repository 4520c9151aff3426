"""A check: what it proves, and the statement that returns a (subject, detail) for everything that contradicts it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from domain.states import (
    BULK_TRANSITIONS,
    FUNDS_TRANSITIONS,
    ITEM_TRANSITIONS,
    OPEN_ITEM_STATES,
    TRANSFER_TRANSITIONS,
)


@dataclass(frozen=True, slots=True)
class Check:
    """`statement` is SQL with the parameters of `_PARAMETERS`; it selects two texts."""

    name: str
    proves: str
    statement: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that contradicts a check."""

    check: str
    subject: str
    detail: str


# Of what one check finds so many are told: a broken table would else fill the memory.
FINDINGS_MAX = 20


def _steps(table: Mapping[str, Any]) -> str:
    """The allowed steps of a machine as JSON."""
    pairs = [{"from_state": str(one), "to_state": str(to)} for one, next_states in table.items() for to in next_states]
    return json.dumps(pairs)


def _final(table: Mapping[str, Any]) -> list[str]:
    return [str(state) for state, next_states in table.items() if not next_states]


_PARAMETERS: Mapping[str, object] = {
    "bulk_steps": _steps(BULK_TRANSITIONS),
    "transfer_steps": _steps(TRANSFER_TRANSITIONS),
    "funds_steps": _steps(FUNDS_TRANSITIONS),
    "item_states": [str(state) for state in ITEM_TRANSITIONS],
    "open_item_states": [str(state) for state in OPEN_ITEM_STATES],
    "final_bulk": _final(BULK_TRANSITIONS),
    "final_transfer": _final(TRANSFER_TRANSITIONS),
}


def begin_snapshot(tx: Connection) -> None:
    """One snapshot for everything, nothing is written, and tables are read as a whole (unlike db/engine.py's handlers)."""
    tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
        tx.execute(text(f"SET LOCAL {name} = on"))
    # With statistics that are old a nested loop over a whole table looks cheap, and is quadratic.
    tx.execute(text("SET LOCAL enable_nestloop = off"))
    # Enough for a hash of some hundred thousand keys; what is larger goes to disk.
    tx.execute(text("SET LOCAL work_mem = '64MB'"))


def run_check(tx: Connection, check: Check, parameters: Mapping[str, object]) -> list[Finding]:
    """What contradicts the check, at most FINDINGS_MAX of it; [] when it holds."""
    statement = f"SELECT * FROM ({check.statement}) AS found(subject, detail) LIMIT {FINDINGS_MAX}"  # noqa: S608 - ours
    clause = text(statement)
    wanted = {name: value for name, value in {**_PARAMETERS, **parameters}.items() if f":{name}" in statement}
    return [Finding(check.name, str(row[0]), str(row[1])) for row in tx.execute(clause, wanted)]


_COUNTS = text("""
    SELECT (SELECT count(*) FROM bulk_transfer), (SELECT count(*) FROM single_transfer), (SELECT count(*) FROM transfer),
           (SELECT count(*) FROM transfer_state_change), (SELECT count(*) FROM participant_position_change),
           (SELECT count(*) FROM participant_currency), (SELECT count(*) FROM delivery)
""")
_COUNT_NAMES: Sequence[str] = (
    "bulks",
    "single_transfers",
    "transfers",
    "transfer_steps",
    "position_changes",
    "accounts",
    "callbacks",
)


def count_rows(tx: Connection) -> dict[str, int]:
    """How much there was to look at."""
    return dict(zip(_COUNT_NAMES, tx.execute(_COUNTS).one(), strict=True))
