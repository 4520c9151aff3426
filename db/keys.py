"""The public keys of participants: registered and revoked by operators, read by the edge to check signatures.

A key counts from valid_from until valid_until, or until it is revoked, whatever is first. Several count side by side while
one replaces another. A revoked key is never taken out: the unique fingerprint keeps it from being registered again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# Of one participant at a time. A signature without a kid is tried with each of them.
KEYS_PER_PARTICIPANT_MAX = 8


@dataclass(frozen=True, slots=True)
class ParticipantKey:
    """A key as the admin resources show it; `public_key` is SubjectPublicKeyInfo in DER."""

    participant_key_id: int
    kid: str | None
    algorithm: str
    public_key: bytes
    fingerprint: str
    valid_from: datetime
    valid_until: datetime | None
    revoked_date: datetime | None
    created_date: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class CountingKey:
    """A key that counts now or will: `from_ms` and `until_ms` are from now, by PostgreSQL's clock."""

    participant: str
    kid: str | None
    public_key: bytes
    from_ms: int
    until_ms: int | None


_KEYS = text(
    """
    SELECT participant_key_id, kid, algorithm, public_key, fingerprint, valid_from, valid_until, revoked_date,
           participant_key.created_date, participant_key.created_by
    FROM participant_key JOIN participant USING (participant_id)
    WHERE participant.name = :name
    ORDER BY participant_key_id
    """
)

_COUNTING = text(
    """
    SELECT participant.name, kid, public_key,
           CAST(extract(epoch FROM valid_from - clock_timestamp()) * 1000 AS bigint) AS from_ms,
           CAST(extract(epoch FROM valid_until - clock_timestamp()) * 1000 AS bigint) AS until_ms
    FROM participant_key JOIN participant USING (participant_id)
    WHERE revoked_date IS NULL AND (valid_until IS NULL OR valid_until > clock_timestamp())
    ORDER BY participant_key_id
    """
)

_ADD = text(
    """
    INSERT INTO participant_key (participant_id, kid, algorithm, public_key, fingerprint, valid_from, valid_until,
                                 created_by)
    VALUES (:participant_id, :kid, :algorithm, :public_key, :fingerprint, coalesce(:valid_from, now()), :valid_until,
            :created_by)
    RETURNING participant_key_id
    """
)

_REVOKE = text(
    """
    UPDATE participant_key SET revoked_date = now()
    WHERE participant_key_id = :participant_key_id AND revoked_date IS NULL
    """
)


def keys_of(tx: Connection, name: str) -> Sequence[ParticipantKey]:
    """A participant's keys, those that no longer count too, in the order in which they came."""
    return [ParticipantKey(*row) for row in tx.execute(_KEYS, {"name": name})]


def counting_keys(tx: Connection) -> Sequence[CountingKey]:
    """Everybody's keys that count now or will; one statement."""
    return [CountingKey(*row) for row in tx.execute(_COUNTING)]


def add_key(
    tx: Connection,
    participant_id: int,
    *,
    kid: str | None,
    algorithm: str,
    public_key: bytes,
    fingerprint: str,
    valid_from: datetime | None,
    valid_until: datetime | None,
    created_by: str,
) -> int:
    """Write a key that is new to its participant and return its id; without `valid_from` it counts from now on."""
    given = {
        "participant_id": participant_id,
        "kid": kid,
        "algorithm": algorithm,
        "public_key": public_key,
        "fingerprint": fingerprint,
        "valid_from": valid_from,
        "valid_until": valid_until,
        "created_by": created_by,
    }
    return int(tx.execute(_ADD, given).scalar_one())


def revoke_key(tx: Connection, participant_key_id: int) -> bool:
    """Let a key count no longer; False when it is revoked already."""
    return tx.execute(_REVOKE, {"participant_key_id": participant_key_id}).rowcount == 1
