"""A run: the waves of a plan are posted, the killer does its worst between them, and everything comes to its end.

play         one world: post, disturb, wait for the end, read the books
run_chaos    twice the same plan, first undisturbed, and the comparison of the two
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from operations.lag import read_lag
from operations.simulated_bulk import timestamp
from stream.interface import StreamError
from tests.bulks import PAYEE, PAYER
from tests.chaos.books import Books, read_books
from tests.chaos.comparison import Verdict, compare, faults_of_reference
from tests.chaos.killer import Killer
from tests.chaos.load import Load
from tests.chaos.parts import Parts
from tests.chaos.plan import FAR_MS, Disturbance, Plan
from tests.chaos.world import ChaosWorld

# A world that has come no further for so long is stuck; what it has lost by then is lost.
STUCK_AFTER_S = 240.0
# Payments: busy, but not queueing for longer than a restart takes.
IN_FLIGHT_MAX = 20_000
_LOOK_S = 0.25
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(slots=True)
class Progress:
    """What is said on the way: how many payments were posted, and how many disturbances made."""

    say: Callable[[str], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Played:
    """The books of a run, how often each FSP sent a request again, and what was done to the processes."""

    books: Books
    resends: dict[tuple[str, str], int]
    disturbances: dict[str, int]
    seconds: float
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Two runs of a plan, and what the comparison says. `faults` are what is wrong beyond it."""

    plan: Plan
    verdict: Verdict
    disturbances: dict[str, int]
    faults: list[str]
    seconds: float
    undisturbed_seconds: float

    @property
    def is_good(self) -> bool:
        return self.verdict.is_good and not self.faults


def run_chaos(
    parts: Parts,
    folder: Path,
    plan: Plan,
    progress: Progress,
    *,
    in_flight_max: int = IN_FLIGHT_MAX,
    workers: int = 2,
    settings: Mapping[str, int | str] | None = None,
    name: str = "chaos",
) -> Outcome:
    """Play the plan undisturbed and disturbed on these parts, in worlds of this name; raises NotTaken, ServiceError."""
    expiration = timestamp(FAR_MS)
    progress.say("starting the switch for the undisturbed run")
    with ChaosWorld(parts, folder, f"{name}-undisturbed", workers=workers, settings=settings) as world:
        calm = play(world, plan, expiration, progress, in_flight_max=in_flight_max, disturb=False)
    faults = [f"undisturbed: {fault}" for fault in (*calm.faults, *faults_of_reference(plan, calm.books, calm.resends))]
    progress.say("starting the switch for the disturbed run")
    with ChaosWorld(parts, folder, f"{name}-disturbed", workers=workers, settings=settings) as world:
        wild = play(world, plan, expiration, progress, in_flight_max=in_flight_max)
    faults += wild.faults + wild.books.faults
    verdict = compare(plan, calm.books, wild.books, wild.resends)
    return Outcome(plan, verdict, wild.disturbances, faults, wild.seconds, calm.seconds)


def play(
    world: ChaosWorld,
    plan: Plan,
    expiration: str,
    progress: Progress,
    *,
    in_flight_max: int = IN_FLIGHT_MAX,
    disturb: bool = True,
    between: Callable[[int], None] = lambda _: None,
) -> Played:
    """One run in this world; `between` is called after each wave with its number, whatever else happens there."""
    killer, began = Killer(world), time.monotonic()
    done: Counter[str] = Counter()
    disturbances: list[Disturbance | None] = [*plan.disturbances, None] if disturb else [None] * len(plan.waves)
    with Load(world, expiration, in_flight_max) as load:
        for number, (wave, disturbance) in enumerate(zip(plan.waves, disturbances, strict=True)):
            load.post(wave)
            between(number)
            if disturbance is not None:
                progress.say(f"{number + 1} of {len(plan.disturbances)}: {disturbance.kind}")
                killer.disturb(disturbance)
                done[disturbance.kind] += 1
            progress.advance(number + 1)
        progress.say("waiting for the end")
        faults = wait_for_the_end(world, load)
    seconds = time.monotonic() - began
    progress.say("reading what came of it")
    faults += _crashes(world)
    return Played(read_books(world, plan), _resends(world, load), dict(done), seconds, faults)


def _resends(world: ChaosWorld, load: Load) -> dict[tuple[str, str], int]:
    resends = {(PAYER, id_): count for id_, count in load.resends.items()}
    for answer in world.payee.answers:
        # The payee sends again what broke off, and hears of it as whoever sends again.
        key = (PAYEE, answer.entity_id)
        resends[key] = resends.get(key, 0) + answer.attempts - 1
    return resends


def _crashes(world: ChaosWorld) -> list[str]:
    """Processes that ended with a traceback, which means a bug, whatever was done to the parts they stand on."""
    return [
        f"{name} has a traceback in its log"
        for name in world.processes.described
        if _TRACEBACK in world.processes.log(name)
    ]


def wait_for_the_end(world: ChaosWorld, load: Load) -> list[str]:
    """Until everything was taken, has ended, was told, and every handler has read everything; [] or why it is stuck."""
    waits_for, since = "", time.monotonic()
    while True:
        now = _waits_for(world, load)
        if now is None:
            return []
        if now != waits_for:
            waits_for, since = now, time.monotonic()
        if time.monotonic() - since > STUCK_AFTER_S:
            return [f"stuck: {now}\n{world.processes.last_words()}"]
        time.sleep(_LOOK_S)


_COUNTS = text(
    "SELECT (SELECT count(*) FROM open_expiration), (SELECT count(*) FROM delivery WHERE state = 'WAITING'),"
    " (SELECT coalesce(sum(next_offset), 0) FROM handler_progress WHERE handler <> 'timeout')"
)


def _waits_for(world: ChaosWorld, load: Load) -> str | None:
    """What is missing to the end, as a text that changes while anything moves; None when nothing is."""
    if not load.is_all_taken():
        return f"{load.taken} requests were taken, more are on their way"
    try:
        with world.engine.connect() as tx:
            unfinished, waiting, offsets = tx.execute(_COUNTS).one()
            if unfinished or waiting:
                return f"{unfinished} bulks or transfers are open, {waiting} callbacks wait (offsets {offsets})"
            lag = sum(row.lag for row in read_lag(tx, world.stream, ages=False, members=False))
    except (DBAPIError, StreamError) as error:
        return f"a part does not answer: {type(error).__name__}"
    return f"{lag} messages are unread" if lag else None
