"""What an act is: one transaction that changes something and says so in one row of admin_audit, or changes nothing.

The names and currencies that acts are given are checked here, because an act may come over HTTP or from a command line.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, text

from db.audit import write_audit
from db.currencies import CURRENCY_SCALES
from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal

# A batch of position holds its accounts for some milliseconds; what takes this long is stuck, and the caller may retry.
LOCK_WAIT_MS = 5_000

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,29}")

# GET /participants/limits shows the limits of all, so nobody can be called so.
RESERVED_NAMES = frozenset({"limits"})


class Act:
    """An act under way. Whoever does it says with `record` what has changed; without that nothing was done (a repeat)."""

    def __init__(self, tx: Connection) -> None:
        self.tx = tx
        self.is_done = False
        self.before: Mapping[str, Any] | None = None
        self.after: Mapping[str, Any] | None = None

    def record(self, *, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        """What the subject was before and is after; amounts as text."""
        self.is_done, self.before, self.after = True, before, after


@contextmanager
def begin_act(engine: Engine, *, actor: str, action: str, subject: str) -> Iterator[Act]:
    """Run an act in a transaction of its own; an exception rolls all of it back."""
    with engine.begin() as tx:
        tx.execute(text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{LOCK_WAIT_MS}ms"})
        act = Act(tx)
        yield act
        if act.is_done:
            write_audit(tx, actor=actor, action=action, subject=subject, before=act.before, after=act.after)


def require_name(name: str) -> None:
    """Refuse a name that cannot be a participant's or a settlement model's."""
    if NAME_PATTERN.fullmatch(name) is None:
        raise Refusal(
            ErrorCode.MALFORMED_SYNTAX, "name must be 2 to 30 of A-Z a-z 0-9 . _ - and begin with a letter or digit"
        )
    if name in RESERVED_NAMES:
        raise Refusal(ErrorCode.VALIDATION_ERROR, f"name must not be {name}")


def require_currency(currency: str) -> None:
    """Refuse what is not a currency that the switch knows."""
    if currency not in CURRENCY_SCALES:
        raise Refusal(ErrorCode.VALIDATION_ERROR, "currency is not a code of ISO 4217")


def participant_not_found(name: str) -> Refusal:
    # Whatever the path said may not be fit to be repeated.
    shown = name if NAME_PATTERN.fullmatch(name) else "of that name"
    return Refusal(ErrorCode.ID_NOT_FOUND, f"Participant {shown} not found")


def account_not_found(name: str, what: str) -> Refusal:
    return Refusal(ErrorCode.ID_NOT_FOUND, f"Participant {name} has no account {what}")
