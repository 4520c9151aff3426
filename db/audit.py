"""Who did what to whom: one row of admin_audit per act, in the act's own transaction. Amounts stand in it as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Audit:
    """One act as it was recorded."""

    admin_audit_id: int
    actor: str
    action: str
    subject: str
    before: Facts | None
    after: Facts | None
    created_date: datetime


_WRITE = text(
    """
    INSERT INTO admin_audit (actor, action, subject, before, after)
    VALUES (:actor, :action, :subject, CAST(:before AS jsonb), CAST(:after AS jsonb))
    """
)

_READ = text(
    """
    SELECT admin_audit_id, actor, action, subject, before, after, created_date
    FROM admin_audit
    WHERE admin_audit_id > :after_id
    ORDER BY admin_audit_id
    LIMIT :rows_max
    """
)


def write_audit(
    tx: Connection, *, actor: str, action: str, subject: str, before: Facts | None, after: Facts | None
) -> None:
    """Record an act; `before` is None for what did not exist."""
    tx.execute(
        _WRITE,
        {
            "actor": actor,
            "action": action,
            "subject": subject,
            "before": None if before is None else json.dumps(before),
            "after": None if after is None else json.dumps(after),
        },
    )


def read_audit(tx: Connection, *, after_id: int = 0, rows_max: int = 1000) -> Sequence[Audit]:
    """The acts after the one with this number, oldest first."""
    return [Audit(*row) for row in tx.execute(_READ, {"after_id": after_id, "rows_max": rows_max})]
