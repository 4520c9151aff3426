"""What a run has come to, in terms that two runs of one seed share: ids of the plan, states, money, and what was told.

Times are left out, and so is what depends on how messages fall into batches (PENDING_FULFIL). A callback is what it says:
its body without completedTimestamp, which is the moment of the run; every other byte of it comes from the plan. Of what
expires, it is left out how far it had come, and with which words it was refused: that is up to who was dead then.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, text

from domain.states import BulkState
from operations.lag import read_dead_letters
from operations.simulated_fsp import Receipt, SimulatedEndpoint
from operations.verification import verify_database
from tests.chaos.plan import Plan, Planned, entity_id_of
from tests.chaos.world import ChaosWorld

_EXCERPT_LENGTH = 160


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that an FSP was told; two are the same when callback and digest are."""

    callback: str
    digest: str
    excerpt: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a bulk, and the steps of its transfer."""

    state: str
    code: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """All callbacks of one name about one entity to one FSP: rows, attempts, and what arrived."""

    fsp: str
    entity_id: str
    callback: str
    rows: int = 0
    answers: int = 0
    # Attempts that ended with a success, with anything else, and those of which nobody knows how they ended.
    succeeded: int = 0
    failed: int = 0
    unrecorded: int = 0
    arrived: int = 0
    different: int = 0

    @property
    def repeats(self) -> int:
        return max(0, self.arrived - self.rows)


@dataclass(slots=True)
class Books:
    """What a run has come to."""

    histories: dict[str, tuple[str, ...]]
    items: dict[str, tuple[Item, ...]]
    singles: dict[str, tuple[str, ...]]
    positions: dict[str, str]
    told: dict[tuple[str, str], tuple[Told, ...]]
    callbacks: list[Callbacks]
    faults: list[str]


def read_books(world: ChaosWorld, plan: Plan) -> Books:
    """Of a world that is at rest."""
    script_of = {entity_id_of(one): one for one in plan.entities}
    with world.engine.connect() as tx:
        books = Books(
            histories=_histories(tx),
            items=_items(tx),
            singles=_singles(tx),
            positions=_positions(tx),
            told={},
            callbacks=_callbacks(tx, (world.payer, world.payee)),
            faults=_faults(tx),
        )
    for fsp in (world.payer, world.payee):
        for id_, receipts in fsp.outcomes.items():
            books.told[fsp.name, id_] = _told_in_order(receipts, script_of.get(id_))
        books.faults += [f"{fsp.name} may not be told this: {one}" for one in fsp.violations]
    books.faults += [f"{one.records} dead letters on {one.topic}" for one in read_dead_letters(world.stream)]
    verification = verify_database(world.engine, settled_ms=0)
    books.faults += [f"verify: {finding}" for finding in verification.findings]
    return books


# --- in the database ---


def _histories(tx: Connection) -> dict[str, tuple[str, ...]]:
    query = (
        "SELECT b.bulk_transfer_id, s.from_state, s.to_state"
        " FROM bulk_transfer b JOIN bulk_transfer_state_change s USING (bulk_key) ORDER BY b.bulk_key"
    )
    histories = {}
    for id_, rows in itertools.groupby(tx.execute(text(query)), key=lambda row: str(row[0])):
        steps = {row[1]: row[2] for row in rows}
        histories[id_] = tuple(state for state in walk(steps) if state != BulkState.PENDING_FULFIL)
    return histories


def _items(tx: Connection) -> dict[str, tuple[Item, ...]]:
    query = (
        "SELECT b.bulk_transfer_id, a.transfer_key, a.bulk_processing_state, coalesce(a.error_code, ''),"
        "       array_agg(s.from_state) FILTER (WHERE s.from_state IS NOT NULL),"
        "       array_agg(s.to_state) FILTER (WHERE s.from_state IS NOT NULL)"
        " FROM bulk_transfer b"
        " JOIN bulk_transfer_association a"
        "      ON a.transfer_key >= b.bulk_key * 10000 AND a.transfer_key < (b.bulk_key + 1) * 10000"
        " LEFT JOIN transfer_state_change s USING (transfer_key)"
        " WHERE b.bulk_transfer_id = :id"
        " GROUP BY b.bulk_transfer_id, a.transfer_key ORDER BY a.transfer_key"
    )
    found: dict[str, tuple[Item, ...]] = {}
    for id_ in tx.execute(text("SELECT bulk_transfer_id FROM bulk_transfer")).scalars().all():
        found[str(id_)] = tuple(
            Item(row[2], row[3], walk(dict(zip(row[4] or (), row[5] or (), strict=True))))
            for row in tx.execute(text(query), {"id": id_})
        )
    return found


def _singles(tx: Connection) -> dict[str, tuple[str, ...]]:
    query = (
        "SELECT t.transfer_id, s.from_state, s.to_state FROM transfer t JOIN transfer_state_change s USING (transfer_key)"
        " WHERE t.transfer_key % 10000 = 0 ORDER BY t.transfer_key"
    )
    rows = tx.execute(text(query))
    return {
        id_: walk({row[1]: row[2] for row in steps})
        for id_, steps in itertools.groupby(rows, key=lambda row: str(row[0]))
    }


def walk(steps: Mapping[str, str]) -> tuple[str, ...]:
    """The states in their order, each step beginning where the one before ended; what is left over stands behind."""
    states: list[str] = []
    state = "-"
    while state in steps and len(states) < len(steps):
        state = steps[state]
        states.append(state)
    return (*states, *(f"{key}→{value}" for key, value in steps.items() if value not in states))


def _positions(tx: Connection) -> dict[str, str]:
    query = (
        "SELECT p.name, a.currency_id, a.ledger_account_type, trim_scale(v.value), trim_scale(v.reserved_value)"
        " FROM participant p JOIN participant_currency a USING (participant_id)"
        " JOIN participant_position v USING (participant_currency_id)"
    )
    return {f"{row[0]} {row[1]} {row[2]}": f"{row[3]}, reserved {row[4]}" for row in tx.execute(text(query))}


_LEFT_BEHIND = {
    "bulks or single transfers that have not ended": "SELECT count(*) FROM open_expiration",
    "items that still wait": (
        "SELECT count(*) FROM bulk_transfer_association WHERE bulk_processing_state IN ('RECEIVED', 'ACCEPTED')"
    ),
    "callbacks that were not delivered, though it was not too late for them": (
        "SELECT count(*) FROM delivery WHERE state <> 'DELIVERED'"
        " AND NOT (state = 'DEAD' AND kind = 'FORWARD' AND finished_date > not_after_date)"
    ),
}


def _faults(tx: Connection) -> list[str]:
    counts = {what: tx.execute(text(query)).scalar_one() for what, query in _LEFT_BEHIND.items()}
    return [f"{count} {what}" for what, count in counts.items() if count]


def _callbacks(tx: Connection, fsps: Iterable[SimulatedEndpoint]) -> list[Callbacks]:
    """By FSP, entity and callback: what was written down, what is known of the attempts, what arrived."""
    query = (
        "SELECT d.fsp, d.entity_id, d.callback, count(*), count(*) FILTER (WHERE d.kind = 'ANSWER'),"
        " sum(a.succeeded), sum(a.failed), sum(d.attempts - a.succeeded - a.failed)"
        " FROM delivery d CROSS JOIN LATERAL ("
        "   SELECT count(*) FILTER (WHERE status BETWEEN 200 AND 299) AS succeeded,"
        "          count(*) FILTER (WHERE status IS NULL OR status NOT BETWEEN 200 AND 299) AS failed"
        "   FROM delivery_attempt a WHERE a.delivery_id = d.delivery_id) a"
        " GROUP BY d.fsp, d.entity_id, d.callback"
    )
    arrived: Counter[tuple[str, str, str]] = Counter()
    digests: defaultdict[tuple[str, str, str], set[bytes]] = defaultdict(set)
    for fsp in fsps:
        for id_, receipts in fsp.outcomes.items():
            for one in receipts:
                arrived[fsp.name, id_, one.callback] += 1
                digests[fsp.name, id_, one.callback].add(one.digest)
    found = []
    for row in tx.execute(text(query)):
        key = (row[0], str(row[1]), row[2])
        rows, answers, succeeded, failed, unrecorded = map(int, row[3:])
        found.append(
            Callbacks(*key, rows, answers, succeeded, failed, unrecorded, arrived.pop(key, 0), len(digests[key]))
        )
    # What arrived and is written down nowhere.
    return found + [Callbacks(*key, arrived=count, different=len(digests[key])) for key, count in arrived.items()]


# --- at the FSPs ---


def _told_in_order(receipts: Iterable[Receipt], planned: Planned | None) -> tuple[Told, ...]:
    """The different things that were told, in the order in which each came first."""
    silent = planned is not None and planned.script.name == "silent"
    return tuple(dict.fromkeys(told(one, silent=silent) for one in receipts))


def told(receipt: Receipt, *, silent: bool) -> Told:
    """What a callback says; of what expired the codes alone."""
    body: dict[str, Any] = receipt.json()
    body.pop("completedTimestamp", None)
    said: Any = body
    if silent:
        body.pop("expiration", None)
        said = sorted(_codes(body)) if receipt.callback != "POST" else ()
    canonical = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    excerpt = canonical[:_EXCERPT_LENGTH].decode(errors="replace")
    return Told(receipt.callback, hashlib.sha256(canonical).hexdigest(), excerpt)


def _codes(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The error of the whole, or of each transfer."""
    if "errorInformation" in body:
        return [("", body["errorInformation"]["errorCode"])]
    results = body.get("individualTransferResults", ())
    return [(one["transferId"], one.get("errorInformation", {}).get("errorCode", "")) for one in results]
