"""Proving that a live database is whole: every check of db/verification in one snapshot, one after the other.

One REPEATABLE READ READ ONLY transaction: nothing is written, nobody is locked out, and what handlers do meanwhile is not
seen. A check that finds something is reported with up to 20 of what it found, and the others run all the same. The memory of
this process does not grow with the database; the server sorts and hashes, on disk where it must.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from db.verification.callbacks import CALLBACKS
from db.verification.check import Finding, begin_snapshot, count_rows, run_check
from db.verification.keys import KEYS
from db.verification.positions import POSITIONS
from db.verification.states import STATES

CHECKS = (*KEYS, *STATES, *POSITIONS, *CALLBACKS)

# A final callback is written within a second of the end; one that is missing after this is missing.
SETTLED_MS = 60_000


@dataclass(slots=True)
class Verification:
    """What was looked at, which checks hold, and everything that contradicts one."""

    rows: dict[str, int]
    holding: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    duration_ms: int = 0

    @property
    def is_whole(self) -> bool:
        return not self.findings


def verify_database(
    engine: Engine, *, settled_ms: int = SETTLED_MS, progress: Callable[[str], None] = lambda _: None
) -> Verification:
    """Run every check; `settled_ms` is how long after its end something may lack its final callback."""
    began = time.monotonic()
    with engine.connect() as tx, tx.begin():
        begin_snapshot(tx)
        verification = run_checks(tx, settled_ms, progress)
    verification.duration_ms = int((time.monotonic() - began) * 1000)
    return verification


def run_checks(tx: Connection, settled_ms: int, progress: Callable[[str], None] = lambda _: None) -> Verification:
    """Run every check on what the transaction sees."""
    verification = Verification(count_rows(tx))
    for number, check in enumerate(CHECKS, start=1):
        progress(f"{number} of {len(CHECKS)}: {check.proves}")
        findings = run_check(tx, check, {"settled_ms": settled_ms})
        verification.findings += findings
        if not findings:
            verification.holding.append(check.name)
    return verification
