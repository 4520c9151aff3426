"""Callbacks on their way: rows written by notification, claimed and finished by deliverers, sent again by operators.

A row is WAITING until it is DELIVERED or DEAD. A deliverer claims rows for the length of a lease and counts the attempt
in the same statement, so an attempt that nobody recorded (kill -9) is counted too, leaves a hole among the attempts, and
is made again when the lease has run out. Which row may be claimed:

    - its time has come and no lease holds it,
    - it is the first of its FSP and entity that waits: an FSP gets the callbacks of one bulk in the order of their writing,
    - its FSP has room: `per_fsp_max` less what the claiming process has in flight to it, so that no FSP holds all slots,
    - within an FSP bulks and single transfers take turns, so that neither waits behind a queue of the other (BULK-133),
    - FSPs with little in flight come first when there is not room for all.

A row whose `not_after_date` has passed dies in the claim, unsent. Claims skip rows that another deliverer is claiming.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, select, text

from db import tables
from domain.delivery import EXPIRED_REASON
from schemas.callbacks import ENDPOINT_TYPES

# LISTEN on this channel hears of new rows, in the moment their transaction commits.
CHANNEL = "delivery"

ERROR_LENGTH_MAX = 200

_ENDPOINT_TYPES = json.dumps(
    {f"{resource}/{callback}": list(names) for (resource, callback), names in ENDPOINT_TYPES.items()}
)


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A callback to write down; `headers` and the bytes behind `content` are what every attempt sends.

    Without `headers`, `content` names another FSP's request, which is passed on as it was sent.
    """

    resource: str
    entity_id: UUID
    fsp: str
    kind: str
    request_id: UUID | None
    callback: str
    content: str
    headers: dict[str, str] | None
    not_after_ms: int | None


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """One attempt to make. `attempts` and `age_ms` count from when it was written or last sent again.

    `endpoint` is the FSP's address template for this callback, if it has one; `left_ms` the time until the callback may no
    longer be made, if that is bounded.
    """

    delivery_id: int
    attempt: int
    resource: str
    entity_id: UUID
    fsp: str
    callback: str
    content: str
    headers: dict[str, str] | None
    endpoint: str | None
    attempts: int
    age_ms: int
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What was claimed, and the ids of the rows that died because it was too late to send them."""

    deliveries: list[ClaimedDelivery]
    expired: list[int]


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What became of one attempt, and the state of its delivery after it; `delay_ms` counts when it waits again.

    `is_ours`: it failed through us, and is none of the attempts that the FSP has.
    """

    delivery_id: int
    attempt: int
    url: str | None
    status: int | None
    error: str | None
    duration_ms: int
    state: str
    delay_ms: int | None
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """A callback as operators see it, with the status or the error of its newest recorded attempt."""

    delivery_id: int
    resource: str
    entity_id: UUID
    fsp: str
    kind: str
    request_id: UUID | None
    callback: str
    content: str
    state: str
    attempts: int
    created_date: datetime
    next_attempt_date: datetime
    finished_date: datetime | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recorded attempt."""

    attempt: int
    url: str | None
    status: int | None
    error: str | None
    duration_ms: int
    created_date: datetime


# One statement: the facts that notification decides with. The names it was asked for come back where they are known.
_LOAD = text(
    """
    SELECT now() AS at,
           ARRAY(SELECT name FROM participant WHERE name = ANY(CAST(:names AS text[]))) AS known
    """
)

# A conflict on either unique index means that the callback is written down already: a repeat changes nothing.
_INSERT = text(
    """
    WITH inserted AS (
        INSERT INTO delivery (resource, entity_id, fsp, kind, request_id, callback, content, headers, not_after_date)
        SELECT resource, entity_id, fsp, kind, request_id, callback, content, headers,
               to_timestamp(not_after_ms / 1000.0)
        FROM json_to_recordset(CAST(:deliveries AS json)) AS new (
            number int, resource text, entity_id uuid, fsp text, kind text, request_id uuid, callback text,
            content text, headers jsonb, not_after_ms bigint)
        ORDER BY number
        ON CONFLICT DO NOTHING
        RETURNING delivery_id
    )
    SELECT count(*) AS inserted, CASE WHEN count(*) > 0 THEN CAST(pg_notify(:channel, '') AS text) END AS notified
    FROM inserted
    """
)

# The FSPs that something waits for are found by hopping over the index from name to name; then per FSP the due rows in
# the order of their dates, each only if it is the first of its entity. Both walks are bounded by what they return, plus the
# rows that stand behind another of their entity. `turn` counts within an FSP and resource, `place` within an FSP.
_CLAIM = text(
    """
    WITH RECURSIVE waiting AS (
        (SELECT fsp FROM delivery WHERE state = 'WAITING' ORDER BY fsp LIMIT 1)
        UNION ALL
        SELECT (SELECT later.fsp FROM delivery AS later
                WHERE later.state = 'WAITING' AND later.fsp > waiting.fsp ORDER BY later.fsp LIMIT 1)
        FROM waiting WHERE waiting.fsp IS NOT NULL
    ),
    room AS (
        SELECT waiting.fsp, coalesce(busy.in_flight, 0) AS in_flight
        FROM waiting
        LEFT JOIN json_to_recordset(CAST(:busy AS json)) AS busy (fsp text, in_flight int) ON busy.fsp = waiting.fsp
        WHERE waiting.fsp IS NOT NULL
    ),
    due AS (
        SELECT head.delivery_id, head.next_attempt_date, room.fsp, room.in_flight, resource.name AS resource,
               row_number() OVER (PARTITION BY room.fsp, resource.name ORDER BY head.next_attempt_date) AS turn
        FROM room
        CROSS JOIN (VALUES ('bulkTransfers'), ('transfers')) AS resource (name)
        CROSS JOIN LATERAL (
            SELECT candidate.delivery_id, candidate.next_attempt_date
            FROM delivery AS candidate
            WHERE candidate.state = 'WAITING' AND candidate.fsp = room.fsp AND candidate.resource = resource.name
              AND candidate.next_attempt_date <= now()
              AND (candidate.lease_date IS NULL OR candidate.lease_date <= now())
              AND candidate.delivery_id = (
                  SELECT first.delivery_id FROM delivery AS first
                  WHERE first.state = 'WAITING' AND first.fsp = candidate.fsp
                    AND first.resource = candidate.resource AND first.entity_id = candidate.entity_id
                  ORDER BY first.delivery_id LIMIT 1)
            ORDER BY candidate.next_attempt_date
            LIMIT greatest(CAST(:per_fsp_max AS int) - room.in_flight, 0)
            FOR UPDATE SKIP LOCKED
        ) AS head
    ),
    placed AS (
        SELECT delivery_id, next_attempt_date,
               in_flight + row_number() OVER (PARTITION BY fsp ORDER BY turn, resource DESC) AS place
        FROM due
    ),
    chosen AS (
        SELECT delivery_id FROM placed WHERE place <= CAST(:per_fsp_max AS int)
        ORDER BY place, next_attempt_date LIMIT :claims_max
    ),
    claimed AS (
        UPDATE delivery
        SET attempts = attempts + 1,
            state = CASE WHEN not_after_date <= now() THEN 'DEAD' ELSE state END,
            finished_date = CASE WHEN not_after_date <= now() THEN now() END,
            lease_date = CASE WHEN not_after_date <= now() THEN NULL
                              ELSE now() + CAST(:lease_ms AS int) * interval '1 millisecond' END
        FROM chosen
        WHERE delivery.delivery_id = chosen.delivery_id
        RETURNING delivery.*
    ),
    unsent AS (
        INSERT INTO delivery_attempt (delivery_id, attempt, error, duration_ms)
        SELECT delivery_id, attempts, :expired_reason, 0 FROM claimed WHERE state = 'DEAD'
    )
    SELECT claimed.delivery_id, claimed.attempts AS attempt, claimed.resource, claimed.entity_id, claimed.fsp,
           claimed.callback, claimed.content, claimed.headers, endpoint.value AS endpoint,
           claimed.attempts - claimed.renewed_attempts AS attempts,
           CAST(extract(epoch FROM now() - claimed.renewed_date) * 1000 AS bigint) AS age_ms,
           CAST(extract(epoch FROM claimed.not_after_date - now()) * 1000 AS bigint) AS left_ms,
           claimed.state
    FROM claimed
    LEFT JOIN LATERAL (
        -- The types that serve this callback, the best first: a PATCH goes to PUT's address where it has none.
        SELECT participant_endpoint.value
        FROM json_array_elements_text(
                 CAST(:endpoint_types AS json) -> (claimed.resource || '/' || claimed.callback))
             WITH ORDINALITY AS wanted (type, rank)
        JOIN participant ON participant.name = claimed.fsp
        JOIN participant_endpoint ON participant_endpoint.participant_id = participant.participant_id
                                 AND participant_endpoint.type = wanted.type
        ORDER BY wanted.rank LIMIT 1
    ) AS endpoint ON true
    ORDER BY claimed.next_attempt_date, claimed.delivery_id
    """
)

# An outcome counts if its attempt is the newest one. A late success counts all the same: the FSP has got the callback.
# An attempt that failed through us is taken off the FSP's own once: when it is said again, its lease is gone already.
_RECORD = text(
    """
    WITH outcome AS (
        SELECT * FROM json_to_recordset(CAST(:outcomes AS json)) AS outcome (
            delivery_id bigint, attempt int, url text, status int, error text, duration_ms int, state text,
            delay_ms bigint, is_ours boolean)
    ),
    attempted AS (
        INSERT INTO delivery_attempt (delivery_id, attempt, url, status, error, duration_ms)
        SELECT delivery_id, attempt, url, status, error, duration_ms FROM outcome
        -- A deliverer that stood still for weeks may come back to a callback that retention has removed.
        WHERE EXISTS (SELECT FROM delivery WHERE delivery.delivery_id = outcome.delivery_id)
        ON CONFLICT DO NOTHING
    )
    UPDATE delivery
    SET state = outcome.state,
        lease_date = NULL,
        renewed_attempts = delivery.renewed_attempts + CAST(outcome.is_ours AND delivery.lease_date IS NOT NULL AS int),
        next_attempt_date = CASE WHEN outcome.state = 'WAITING'
                                 THEN now() + outcome.delay_ms * interval '1 millisecond'
                                 ELSE delivery.next_attempt_date END,
        finished_date = CASE WHEN outcome.state <> 'WAITING' THEN now() END
    FROM outcome
    WHERE delivery.delivery_id = outcome.delivery_id AND delivery.state = 'WAITING'
      AND (outcome.state = 'DELIVERED' OR delivery.attempts = outcome.attempt)
    """
)

_SEND_AGAIN = text(
    """
    WITH renewed AS (
        UPDATE delivery
        SET state = 'WAITING', next_attempt_date = now(), lease_date = NULL, finished_date = NULL,
            renewed_date = now(), renewed_attempts = attempts
        WHERE delivery_id = ANY(CAST(:delivery_ids AS bigint[])) AND state = 'DEAD'
          AND (not_after_date IS NULL OR not_after_date > now())
        RETURNING delivery_id
    )
    SELECT delivery_id, CAST(pg_notify(:channel, '') AS text) AS notified FROM renewed ORDER BY delivery_id
    """
)


def load_receivers(tx: Connection, names: Sequence[str]) -> tuple[datetime, frozenset[str]]:
    """The transaction's time, and which of the names are participants (active or not: both are told, reference §11.9)."""
    row = tx.execute(_LOAD, {"names": list(names)}).one()
    return row.at, frozenset(row.known)


def insert_deliveries(tx: Connection, deliveries: Sequence[NewDelivery]) -> int:
    """Write callbacks down in the given order, wake the deliverers at commit; returns how many were new."""
    rows = [{"number": number, **asdict(delivery)} for number, delivery in enumerate(deliveries)]
    return int(tx.execute(_INSERT, {"deliveries": _json(rows), "channel": CHANNEL}).scalar_one())


def claim_deliveries(
    tx: Connection, *, claims_max: int, per_fsp_max: int, in_flight: Mapping[str, int], lease_ms: int
) -> Claim:
    """Claim up to `claims_max` attempts; `in_flight` is what the caller has under way, per FSP."""
    rows = tx.execute(
        _CLAIM,
        {
            "claims_max": claims_max,
            "per_fsp_max": per_fsp_max,
            "busy": _json([{"fsp": fsp, "in_flight": count} for fsp, count in in_flight.items()]),
            "lease_ms": lease_ms,
            "expired_reason": EXPIRED_REASON,
            "endpoint_types": _ENDPOINT_TYPES,
        },
    ).mappings()
    claim = Claim([], [])
    for row in rows:
        values = dict(row)
        if values.pop("state") == "DEAD":
            claim.expired.append(values["delivery_id"])
        else:
            claim.deliveries.append(ClaimedDelivery(**values))
    return claim


def record_outcomes(tx: Connection, outcomes: Sequence[AttemptOutcome]) -> None:
    """Keep what became of many attempts; saying the same again changes nothing."""
    tx.execute(_RECORD, {"outcomes": _json([asdict(outcome) for outcome in outcomes])})


def send_again(tx: Connection, delivery_ids: Sequence[int]) -> list[int]:
    """Give dead callbacks a new budget of attempts and age; returns those that wait again now.

    What is not dead, or is a POST whose bulk has expired, stays as it is.
    """
    rows = tx.execute(_SEND_AGAIN, {"delivery_ids": list(delivery_ids), "channel": CHANNEL})
    return [row.delivery_id for row in rows]


def list_deliveries(
    connection: Connection,
    *,
    rows_max: int,
    state: str | None = None,
    fsp: str | None = None,
    resource: str | None = None,
    entity_id: UUID | None = None,
) -> list[Delivery]:
    """Callbacks for operators, newest first, of one state, FSP, resource or entity where that is asked for."""
    delivery, attempt = tables.delivery, tables.delivery_attempt
    last = (
        select(attempt.c.status, attempt.c.error)
        .where(attempt.c.delivery_id == delivery.c.delivery_id)
        .order_by(attempt.c.attempt.desc())
        .limit(1)
        .lateral("last")
    )
    names = [name for name in Delivery.__dataclass_fields__ if not name.startswith("last_")]
    query = (
        select(
            *(delivery.c[name] for name in names), last.c.status.label("last_status"), last.c.error.label("last_error")
        )
        .select_from(delivery.outerjoin(last, last.c.status.is_not(None) | last.c.error.is_not(None)))
        .order_by(delivery.c.delivery_id.desc())
        .limit(rows_max)
    )
    wanted: dict[str, Any] = {"state": state, "fsp": fsp, "resource": resource, "entity_id": entity_id}
    for name, value in wanted.items():
        if value is not None:
            query = query.where(delivery.c[name] == value)
    return [Delivery(**row) for row in connection.execute(query).mappings()]


def list_attempts(connection: Connection, delivery_id: int) -> list[Attempt]:
    """The recorded attempts of one callback, in order."""
    attempt = tables.delivery_attempt
    query = (
        select(*(attempt.c[name] for name in Attempt.__dataclass_fields__))
        .where(attempt.c.delivery_id == delivery_id)
        .order_by(attempt.c.attempt)
    )
    return [Attempt(**row) for row in connection.execute(query).mappings()]


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
