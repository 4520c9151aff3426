"""Two runs of one plan, one of them undisturbed, against each other: pure, so that it can itself be tested.

The undisturbed run is first held against the plan, lest both runs be wrong alike. Then, of the disturbed one:

    lost                 payments that were answered 202 and are unknown, or have not ended
    doubled              payments nobody made, and second outcomes: a row too many, or an FSP told two different things
    outcomes_missing     what an FSP was told without disturbance, and is not told here
    outcomes_differing   what it is told instead, or in another order
    states_differing     bulks, items and transfers that went another way
    callbacks_repeated   requests that an FSP got more often than there are rows for them; a repeat is rightful where an
                         attempt before it has no recorded success, and in the same bytes, and a fault otherwise

Who repeats a request because its answer was lost may be answered again, at most so often; that is no second outcome. What
expires ends as expired, but how far it had come, and whether its payee had heard of it, is up to who was dead then.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from domain.states import OPEN_ITEM_STATES, BulkState, is_final
from tests.bulks import PAYEE, PAYER
from tests.chaos.books import Books, Callbacks, Told
from tests.chaos.plan import Plan, Planned, PlannedBulk, entity_id_of, payments_of

# Explanations beyond so many say nothing new.
EXPLANATIONS_MAX = 20
# Taken only after its time because the edge was away: it is then rightly refused as a whole.
_TAKEN_TOO_LATE = "3100"
_EXPIRED = "3303"


@dataclass(slots=True)
class Verdict:
    """What is wrong, in numbers, with explanations of the first of them; `callbacks_repeated` alone is no fault."""

    lost: int = 0
    doubled: int = 0
    outcomes_missing: int = 0
    outcomes_differing: int = 0
    states_differing: int = 0
    callbacks_repeated: int = 0
    repeats_unexplained: int = 0
    positions_equal: bool = True
    explanations: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        wrong = self.lost or self.doubled or self.outcomes_missing or self.outcomes_differing
        return self.positions_equal and not (wrong or self.states_differing or self.repeats_unexplained)

    def explain(self, text: str) -> None:
        if len(self.explanations) < EXPLANATIONS_MAX:
            self.explanations.append(text)


def faults_of_reference(plan: Plan, books: Books, resends: Mapping[tuple[str, str], int]) -> list[str]:
    """Where a run is not what the plan says; `resends` as for `compare`, where something was away."""
    faults = list(books.faults)
    for planned in plan.entities:
        id_ = entity_id_of(planned)
        if planned.script.name == "silent":
            told = books.told.get((PAYER, id_), ())
            answers_max = resends.get((PAYER, id_), 0)
            was_too_late = answers_max and all(map(_is_taken_too_late, told))
            has_expired = was_too_late or any(_EXPIRED in one.excerpt for one in told)
            if not 1 <= len(told) <= 1 + answers_max or not has_expired:
                faults.append(f"{_name(planned)} did not expire: {PAYER} was told {_texts(told)}")
        elif isinstance(planned, PlannedBulk):
            script = planned.script
            if books.histories.get(id_) != tuple(script.history):
                faults.append(f"{script.name} {id_} went {books.histories.get(id_)}, not {script.history}")
            items = [(one.state, one.steps) for one in books.items.get(id_, ())]
            if items != [(fate.item, fate.transfer) for fate in planned.script.fates]:
                faults.append(f"the items of {script.name} {id_} did not become what was planned")
        elif books.singles.get(id_) != planned.script.states:
            faults.append(f"{_name(planned)} went {books.singles.get(id_)}, not {planned.script.states}")
    paid = {f"{PAYER} USD POSITION": f"{plan.committed}, ", f"{PAYEE} USD POSITION": f"{-plan.committed}, "}
    for account, amount in paid.items():
        if not books.positions.get(account, "").startswith(amount):
            faults.append(f"{account} is {books.positions.get(account)}, not {amount.rstrip(', ')}")
    return faults


def compare(plan: Plan, expected: Books, found: Books, resends: Mapping[tuple[str, str], int]) -> Verdict:
    """`resends` says, by FSP and entity, how often an FSP of the disturbed run has sent its request again."""
    verdict = Verdict()
    callbacks = _by_side(found.callbacks)
    for planned in plan.entities:
        _compare_states(planned, expected, found, verdict)
        for fsp in (PAYER, PAYEE):
            side = (fsp, entity_id_of(planned))
            answers = sum(one.answers for one in callbacks.get(side, ()))
            if answers > resends.get(side, 0):
                verdict.doubled += 1
                verdict.explain(
                    f"{_name(planned)}: {fsp} has {answers} answers to {resends.get(side, 0)} repeated requests"
                )
            if planned.script.name == "silent":
                _compare_expired(planned, fsp, expected, found, resends.get(side, 0), verdict)
            else:
                _compare_told(planned, fsp, expected, found, answers, verdict)
    _count_strangers(plan, found, verdict)
    for one in found.callbacks:
        _count_repeats(one, verdict)
    verdict.positions_equal = expected.positions == found.positions
    if not verdict.positions_equal:
        verdict.explain(f"positions are {found.positions}, not {expected.positions}")
    return verdict


def _name(planned: Planned) -> str:
    kind = "bulk" if isinstance(planned, PlannedBulk) else "single transfer"
    return f"{kind} {planned.script.name} {entity_id_of(planned)}"


# --- states ---


def _compare_states(planned: Planned, expected: Books, found: Books, verdict: Verdict) -> None:
    lost = _lost(planned, found)
    if lost:
        verdict.lost += lost
        verdict.explain(f"{_name(planned)}: {lost} payments are lost")
        return
    id_ = entity_id_of(planned)
    if planned.script.name == "silent":
        return
    if isinstance(planned, PlannedBulk):
        pairs: list[tuple[object, object]] = [(expected.histories[id_], found.histories.get(id_))]
        pairs += zip(expected.items[id_], found.items[id_], strict=True)
    else:
        pairs = [(expected.singles.get(id_), found.singles.get(id_))]
    different = [(was, now) for was, now in pairs if was != now]
    if different:
        verdict.states_differing += len(different)
        verdict.explain(
            f"{_name(planned)}: {len(different)} states differ, first {different[0][1]}, not {different[0][0]}"
        )


def _lost(planned: Planned, found: Books) -> int:
    """How many of its payments are unknown or have not ended."""
    id_ = entity_id_of(planned)
    if not isinstance(planned, PlannedBulk):
        told = found.told.get((PAYER, id_), ())
        return 0 if told else 1
    history, items = found.histories.get(id_, ()), found.items.get(id_, ())
    if not history or not is_final(BulkState(history[-1])):
        return payments_of(planned)
    if planned.script.fates and items:
        return len(planned.script.fates) - len(items) + sum(item.state in OPEN_ITEM_STATES for item in items)
    # A bulk that was refused as a whole has no items; what else becomes of it is compared.
    return 0


# --- what was told ---


def _compare_told(planned: Planned, fsp: str, expected: Books, found: Books, answers: int, verdict: Verdict) -> None:
    """What is missing, what came instead, and the order; answers to repeated requests may stand behind."""
    side = (fsp, entity_id_of(planned))
    should, is_ = expected.told.get(side, ()), found.told.get(side, ())
    missing = [one for one in should if one not in is_]
    strange = [one for one in is_ if one not in should]
    # A single transfer's answer is the hub's, in other words than the payee's own PUT, which it repeats.
    excess = max(0, len(strange) - (0 if isinstance(planned, PlannedBulk) else answers))
    disordered = not missing and not strange and should != is_
    verdict.outcomes_missing += len(missing)
    verdict.outcomes_differing += excess + disordered
    verdict.doubled += max(0, len({one for one in is_ if one.callback != "POST"}) - answers - _finals(should))
    if missing or excess or disordered:
        verdict.explain(f"{_name(planned)}: {fsp} was told {_texts(is_)}, not {_texts(should)}")


def _finals(told: Iterable[Told]) -> int:
    return sum(one.callback != "POST" for one in told)


def _texts(told: Iterable[Told]) -> list[str]:
    return [f"{one.callback} {one.excerpt}" for one in told]


def _compare_expired(planned: Planned, fsp: str, expected: Books, found: Books, resends: int, verdict: Verdict) -> None:
    """Each side is told the one outcome; the payee only if it was told of it at all."""
    side = (fsp, entity_id_of(planned))
    should = {one for one in expected.told.get(side, ()) if one.callback != "POST"}
    is_ = {one for one in found.told.get(side, ()) if one.callback != "POST"}
    if is_ == should or (fsp == PAYEE and not is_):
        return
    if resends and is_ and all(map(_is_taken_too_late, is_)):
        return
    verdict.outcomes_missing += not is_
    verdict.outcomes_differing += bool(is_)
    verdict.doubled += max(0, len(is_) - 1)
    verdict.explain(f"{_name(planned)}: {fsp} was told {_texts(is_)}, not {_texts(should)}")


def _is_taken_too_late(told: Told) -> bool:
    return told.callback == "PUT_ERROR" and _TAKEN_TOO_LATE in told.excerpt


# --- rows and repeats ---


def _by_side(callbacks: Iterable[Callbacks]) -> dict[tuple[str, str], list[Callbacks]]:
    sides: defaultdict[tuple[str, str], list[Callbacks]] = defaultdict(list)
    for one in callbacks:
        sides[one.fsp, one.entity_id].append(one)
    return sides


def _count_strangers(plan: Plan, found: Books, verdict: Verdict) -> None:
    """Payments in the books that nobody has made."""
    planned = {entity_id_of(one) for one in plan.entities}
    strangers = [id_ for id_ in (*found.histories, *found.singles) if id_ not in planned]
    too_many = Counter({id_: len(found.items.get(id_, ())) or 1 for id_ in strangers})
    for one in plan.entities:
        if isinstance(one, PlannedBulk):
            too_many[one.bulk_transfer_id] = max(0, len(found.items.get(one.bulk_transfer_id, ())) - payments_of(one))
    verdict.doubled += too_many.total()
    if strangers:
        verdict.explain(f"nobody has made {strangers[:3]}")


def _count_repeats(one: Callbacks, verdict: Verdict) -> None:
    verdict.callbacks_repeated += one.repeats
    rightful = one.succeeded + one.failed + one.unrecorded
    unexplained = max(0, one.arrived - rightful, one.different - one.rows)
    if unexplained:
        verdict.repeats_unexplained += unexplained
        verdict.explain(
            f"{one.callback} of {one.entity_id} to {one.fsp}: repeated without a cause, or differently: {one}"
        )
