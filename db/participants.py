"""Who takes part and with which accounts: the reads of the handlers, and the rows behind the admin acts.

The first part is for the pipeline: two statements per batch, whatever its size, and no cache, so that an act of the
admin app (inactive, a new account) holds for the very next message (D19's sibling, reference §11.9).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Participant:
    """An FSP, or the hub itself."""

    participant_id: int
    name: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class Account:
    """Where a participant's transfers in one currency are counted, and where what it brought in stands."""

    position_account_id: int
    is_active: bool
    settlement_account_id: int


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """A participant as the admin resources show it."""

    participant_id: int
    name: str
    is_active: bool
    is_proxy: bool
    created_date: datetime


_PARTICIPANTS_BY_NAME = text(
    "SELECT participant_id, name, is_active FROM participant WHERE name = ANY(CAST(:names AS text[]))"
)

_ACCOUNTS_OF = text(
    """
    SELECT wanted.name, wanted.currency, position.participant_currency_id AS position_account_id,
           position.is_active, settlement.participant_currency_id AS settlement_account_id
    FROM unnest(CAST(:names AS text[]), CAST(:currencies AS text[])) AS wanted (name, currency)
    JOIN participant ON participant.name = wanted.name
    JOIN participant_currency AS position
      ON position.participant_id = participant.participant_id AND position.currency_id = wanted.currency
     AND position.ledger_account_type = 'POSITION'
    JOIN participant_currency AS settlement
      ON settlement.participant_id = participant.participant_id AND settlement.currency_id = wanted.currency
     AND settlement.ledger_account_type = 'SETTLEMENT'
    """
)


def participants_by_name(tx: Connection, names: Iterable[str]) -> dict[str, Participant]:
    """Those of the names that are participants, the hub included; one statement."""
    rows = tx.execute(_PARTICIPANTS_BY_NAME, {"names": sorted(set(names))})
    return {row.name: Participant(row.participant_id, row.name, row.is_active) for row in rows}


def accounts_of(tx: Connection, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Account]:
    """Of the (participant's name, currency) pairs those with a POSITION and a SETTLEMENT account; one statement."""
    wanted = sorted(set(pairs))
    rows = tx.execute(
        _ACCOUNTS_OF, {"names": [name for name, _ in wanted], "currencies": [currency for _, currency in wanted]}
    )
    return {
        (row.name, row.currency): Account(row.position_account_id, row.is_active, row.settlement_account_id)
        for row in rows
    }


# ---------------------------------------------------------------------------------------------------------------------
# Behind the admin acts.

_PARTICIPANTS = text(
    """
    SELECT participant_id, name, is_active, is_proxy, created_date FROM participant
    WHERE CAST(:name AS text) IS NULL OR name = :name
    ORDER BY participant_id
    """
)
_LOCK = text("SELECT participant_id FROM participant WHERE name = :name FOR NO KEY UPDATE")
_ADD = text(
    "INSERT INTO participant (name, is_proxy, created_by) VALUES (:name, :is_proxy, :created_by) ON CONFLICT DO NOTHING"
)
_SET_ACTIVE = text("UPDATE participant SET is_active = :is_active WHERE participant_id = :participant_id")

_ENDPOINTS = text(
    """
    SELECT type, participant_endpoint.value
    FROM participant_endpoint JOIN participant USING (participant_id)
    WHERE participant.name = :name
    ORDER BY type
    """
)
_SET_ENDPOINT = text(
    """
    INSERT INTO participant_endpoint (participant_id, type, value) VALUES (:participant_id, :type, :value)
    ON CONFLICT (participant_id, type) DO UPDATE SET value = excluded.value, changed_date = now()
    """
)


def participants(tx: Connection) -> Sequence[ParticipantRow]:
    """Everybody, the hub first, in the order in which they came."""
    return [ParticipantRow(*row) for row in tx.execute(_PARTICIPANTS, {"name": None})]


def participant_named(tx: Connection, name: str) -> ParticipantRow | None:
    """The participant of that name, or None."""
    row = tx.execute(_PARTICIPANTS, {"name": name}).one_or_none()
    return None if row is None else ParticipantRow(*row)


def lock_participant(tx: Connection, name: str) -> bool:
    """Wait until nobody else changes this participant or adds to it; False when there is none of that name."""
    return tx.execute(_LOCK, {"name": name}).one_or_none() is not None


def add_participant(tx: Connection, name: str, *, is_proxy: bool, created_by: str) -> bool:
    """Write the participant, active and without accounts; False when the name is known."""
    return tx.execute(_ADD, {"name": name, "is_proxy": is_proxy, "created_by": created_by}).rowcount == 1


def set_participant_active(tx: Connection, participant_id: int, *, is_active: bool) -> None:
    """Let the participant take part, or no longer."""
    tx.execute(_SET_ACTIVE, {"participant_id": participant_id, "is_active": is_active})


def endpoints(tx: Connection, name: str) -> Mapping[str, str]:
    """The participant's endpoints by type."""
    return {row.type: row.value for row in tx.execute(_ENDPOINTS, {"name": name})}


def set_endpoint(tx: Connection, participant_id: int, type_: str, value: str) -> None:
    """Set or replace the endpoint of a type."""
    tx.execute(_SET_ENDPOINT, {"participant_id": participant_id, "type": type_, "value": value})
