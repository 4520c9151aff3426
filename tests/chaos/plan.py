"""What a seed means: which payments are made, what becomes of them, and what is done to the processes meanwhile.

Everything here follows from the seed alone: ids, sizes, how every bulk ends, and of each disturbance its kind, its
victim and its moment, as fractions that the run applies to what there is then. So two runs of one seed send the same
bytes, and what they come to can be compared body by body. What time decides is planned to be decided alike whoever is
killed: every expiration is a day away, but of those that the payee never answers, and they can only expire.

The kinds of bulks are those of tests/process/bulk_scripts.py, in sizes of 1 to 1,000 items, and with `whole`, of which
everything is committed: most of the money. Single transfers are those of tests/process/single_scripts.py.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from domain.identifiers import id_text
from domain.states import BulkState
from operations.simulated_fsp import PayeeBehaviour
from tests.process.bulk_scripts import (
    COMMITTED,
    EXPIRED,
    FORWARDED,
    IN_ERROR,
    LEFT_OUT,
    NO_ACCOUNT,
    OVER_COVER,
    OVER_LIMIT,
    REFUSED,
    REJECTED,
    SCRIPT_OF,
    WRONG,
    Fate,
    Script,
)
from tests.process.single_scripts import SINGLE_SCRIPTS, SingleScript

# Small enough that all of it stays below the net debit cap, so that nothing but its own amount refuses an item.
AMOUNT: Final = "1"
PAYMENTS_MAX: Final = 500_000
ITEMS_MAX: Final = 1_000
FAR_MS: Final = 24 * 60 * 60 * 1000

# One payment in so many is a single transfer.
_SINGLES_SHARE = 100
_REFUSED_AT_THE_SWITCH = (NO_ACCOUNT, OVER_LIMIT, OVER_COVER)
# How many of a hundred bulks are of which kind.
_KINDS = {
    "whole": 46,
    "mixed": 24,
    "careless": 6,
    "error": 5,
    "rejected": 5,
    "none": 4,
    "refused": 4,
    "silent": 3,
    "slow": 3,
}
# How many of a hundred bulks have up to so many items.
_SMALL = 20
_SIZES = ((1, 1, 10), (2, 20, 15), (21, 300, 25), (301, 999, 20), (1_000, 1_000, 30))


class Kind(StrEnum):
    """What is done to whom."""

    KILL_HANDLER = "kill_handler"
    KILL_HANDLER_AFTER_COMMIT = "kill_handler_after_commit"
    KILL_EDGE = "kill_edge"
    KILL_DELIVERER = "kill_deliverer"
    HOLD_HANDLER = "hold_handler"
    RESTART_KAFKA = "restart_kafka"
    KILL_POSTGRES = "kill_postgres"
    RESTART_POSTGRES = "restart_postgres"
    S3_DOWN = "s3_down"


# How many of a hundred disturbances are of which kind; each kind comes once before any comes twice.
WEIGHTS: Final = {
    Kind.KILL_HANDLER: 40,
    Kind.KILL_HANDLER_AFTER_COMMIT: 20,
    Kind.KILL_EDGE: 10,
    Kind.KILL_DELIVERER: 12,
    Kind.HOLD_HANDLER: 4,
    Kind.RESTART_KAFKA: 3,
    Kind.KILL_POSTGRES: 4,
    Kind.RESTART_POSTGRES: 3,
    Kind.S3_DOWN: 4,
}


@dataclass(frozen=True, slots=True)
class Disturbance:
    """`victim` (of those there are) and `length` (of the longest there may be) are fractions."""

    kind: Kind
    victim: float
    pause_ms: int
    length: float


@dataclass(frozen=True, slots=True)
class PlannedBulk:
    """A bulk, and what must become of it."""

    script: Script
    bulk_transfer_id: str
    bulk_quote_id: str
    transfer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedSingle:
    """A single transfer, and what must become of it."""

    script: SingleScript
    transfer_id: str


Planned = PlannedBulk | PlannedSingle


@dataclass(frozen=True, slots=True)
class Plan:
    """`waves` are posted one after the other; after each but the last comes one of the disturbances."""

    seed: int
    waves: tuple[tuple[Planned, ...], ...]
    disturbances: tuple[Disturbance, ...]

    @property
    def entities(self) -> Iterator[Planned]:
        return (one for wave in self.waves for one in wave)

    @property
    def payments(self) -> int:
        return sum(payments_of(one) for one in self.entities)

    @property
    def committed(self) -> int:
        """How many payments must be committed, an AMOUNT each."""
        return sum(
            one.script.committed if isinstance(one, PlannedBulk) else int(one.script.committed) for one in self.entities
        )


def payments_of(planned: Planned) -> int:
    return len(planned.transfer_ids) if isinstance(planned, PlannedBulk) else 1


def entity_id_of(planned: Planned) -> str:
    return planned.bulk_transfer_id if isinstance(planned, PlannedBulk) else planned.transfer_id


def make_plan(
    seed: int, payments: int, kills: int, *, silent_expires_in_ms: int, kinds: Sequence[Kind] = tuple(WEIGHTS)
) -> Plan:
    """The plan of a seed: exactly `payments` payments, and `kills` disturbances of these kinds.

    Raises ValueError when that many payments would no longer leave the outcome to the plan.
    """
    if not 1 <= payments <= PAYMENTS_MAX:
        raise ValueError(f"payments must be 1 to {PAYMENTS_MAX:,}: with more the net debit cap would refuse some")
    ids = random.Random(f"{seed} ids")
    chance = random.Random(f"{seed} payments")
    singles = payments // _SINGLES_SHARE
    planned: list[Planned] = [
        _bulk(ids, script) for script in _scripts(chance, payments - singles, silent_expires_in_ms)
    ]
    for number in range(singles):
        script = SINGLE_SCRIPTS[number % len(SINGLE_SCRIPTS)]
        amount = AMOUNT if script.committed else script.amount
        expires_in_ms = silent_expires_in_ms if script.name == "silent" else FAR_MS
        planned.append(PlannedSingle(replace(script, amount=amount, expires_in_ms=expires_in_ms), _new_id(ids)))
    # What ends by time goes into the first half, so that the end of the run waits for it less.
    planned.sort(key=lambda one: chance.random() / (2 if one.script.name == "silent" else 1))
    return Plan(seed, _waves(planned, kills + 1), _disturbances(random.Random(f"{seed} kills"), kills, kinds))


def _waves(planned: Sequence[Planned], count: int) -> tuple[tuple[Planned, ...], ...]:
    """As many payments in each as whole bulks allow."""
    total, before = sum(map(payments_of, planned)), 0
    waves: list[list[Planned]] = [[] for _ in range(count)]
    for one in planned:
        waves[before * count // total].append(one)
        before += payments_of(one)
    return tuple(map(tuple, waves))


def _disturbances(chance: random.Random, count: int, kinds: Sequence[Kind]) -> tuple[Disturbance, ...]:
    """Every kind once, in any order, then by their weights."""
    first = chance.sample(list(kinds), len(kinds))[:count]
    rest = chance.choices(list(kinds), [WEIGHTS[kind] for kind in kinds], k=max(0, count - len(first)))
    order = [*first, *rest]
    chance.shuffle(order)
    return tuple(Disturbance(kind, chance.random(), chance.randrange(100, 1_500), chance.random()) for kind in order)


# --- bulks ---


def _scripts(chance: random.Random, items_total: int, silent_expires_in_ms: int) -> Iterator[Script]:
    """Scripts whose items are so many together; every kind comes once before any comes twice."""
    left, first = items_total, chance.sample(list(_KINDS), len(_KINDS))
    # In a small run no bulk is so large that the others have no room.
    items_max = max(_SMALL, items_total // _SMALL)
    while left:
        if first:
            # Small, so that a small run has them all; three items are the fewest that every kind can be made of.
            kind, items = first.pop(), chance.randint(3, _SMALL)
        else:
            kind = chance.choices(list(_KINDS), list(_KINDS.values()))[0]
            lowest, highest, _ = chance.choices(_SIZES, [one[2] for one in _SIZES])[0]
            items = chance.randint(lowest, highest)
        items = min(left, items_max, items)
        yield _script(chance, kind, items, silent_expires_in_ms)
        left -= items


def _script(chance: random.Random, kind: str, items: int, silent_expires_in_ms: int) -> Script:
    script = _fated(chance, kind, items)
    expires_in_ms = silent_expires_in_ms if kind == "silent" else FAR_MS
    return replace(script, expires_in_ms=expires_in_ms, fates=tuple(_small(fate) for fate in script.fates))


def _small(fate: Fate) -> Fate:
    return fate if fate in (OVER_LIMIT, OVER_COVER) else replace(fate, amount=AMOUNT)


def _fated(chance: random.Random, kind: str, items: int) -> Script:
    """A script of this kind with so many items."""
    ended = (*FORWARDED, BulkState.PROCESSING, BulkState.COMPLETED)
    like = SCRIPT_OF.get(kind)
    if kind == "refused" and like is not None:
        # Nothing of it becomes an item; its size is all that is known of it.
        return replace(like, items=items)
    if kind == "none" and like is not None:
        return replace(like, fates=tuple(chance.choices(_REFUSED_AT_THE_SWITCH, k=items)))
    if kind == "silent" and like is not None:
        return replace(like, fates=(EXPIRED,) * items)
    if kind == "rejected" and like is not None:
        return replace(like, fates=_mingled(chance, [REJECTED] * items, kind))
    if kind == "error" and like is not None:
        return replace(like, fates=_mingled(chance, [IN_ERROR] * items, kind))
    if kind == "mixed" and items > 1:
        committed = chance.randint(1, items - 1)
        fates = _mingled(chance, [*[COMMITTED] * committed, *[REFUSED] * (items - committed)], kind)
        return Script(kind, fates, ended, PayeeBehaviour(commit_max=fates.count(COMMITTED), error_code="5104"))
    if kind == "careless" and items > 2:
        wrong, omit = chance.randint(1, (items - 1) // 2), chance.randint(0, (items - 1) // 2)
        fates = (*[WRONG] * wrong, *[COMMITTED] * (items - wrong - omit), *[LEFT_OUT] * omit)
        return Script(kind, fates, ended, PayeeBehaviour(wrong_fulfilments=wrong, omit=omit))
    behaviour = PayeeBehaviour(delay_ms=chance.randrange(1, 2_000) if kind == "slow" else 0)
    return Script("slow" if kind == "slow" else "whole", (COMMITTED,) * items, ended, behaviour)


def _mingled(chance: random.Random, fates: list[Fate], kind: str) -> tuple[Fate, ...]:
    """With up to a third of them, but never the first, refused at the switch."""
    share = chance.choice((0, 0, 0.05, 0.33))
    return tuple(
        chance.choice(_REFUSED_AT_THE_SWITCH) if number and chance.random() < share else fate
        for number, fate in enumerate(fates)
    )


def _bulk(ids: random.Random, script: Script) -> PlannedBulk:
    return PlannedBulk(script, _new_id(ids), _new_id(ids), tuple(_new_id(ids) for _ in range(script.size)))


def _new_id(ids: random.Random) -> str:
    """A UUID of version 4."""
    value = bytearray(ids.randbytes(16))
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    return id_text(bytes(value))
