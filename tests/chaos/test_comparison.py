"""What the comparison of two runs calls lost, doubled, missing, differing and repeated, on books made by hand."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from domain.states import BulkState, ItemState, TransferState
from tests.bulks import PAYEE, PAYER
from tests.chaos.books import Books, Callbacks, Item, Told
from tests.chaos.comparison import Verdict, compare, faults_of_reference
from tests.chaos.plan import Plan, PlannedBulk, PlannedSingle, make_plan

PLAN = make_plan(5, 900, 0, silent_expires_in_ms=30_000)


def planned(name: str) -> PlannedBulk:
    return next(one for one in PLAN.entities if isinstance(one, PlannedBulk) and one.script.name == name)


def single(name: str) -> PlannedSingle:
    return next(one for one in PLAN.entities if isinstance(one, PlannedSingle) and one.script.name == name)


def books_of(plan: Plan) -> Books:
    """What a run that goes as planned comes to."""
    books = Books({}, {}, {}, {}, {}, [], [])
    for one in plan.entities:
        if isinstance(one, PlannedBulk):
            id_ = one.bulk_transfer_id
            books.histories[id_] = tuple(one.script.history)
            books.items[id_] = tuple(Item(fate.item, fate.code, fate.transfer) for fate in one.script.fates)
            forwards, finals = ("POST",) if one.script.is_forwarded else (), ("PUT",)
            callbacks = {PAYER: (one.script.callback,), PAYEE: (*forwards, *(finals if forwards else ()))}
        else:
            id_ = one.transfer_id
            books.singles[id_] = one.script.states
            callbacks = {PAYER: one.script.payer, PAYEE: one.script.payee}
        for fsp, names in callbacks.items():
            books.told[fsp, id_] = tuple(Told(name, f"{name} {id_} {fsp}", "3303") for name in names)
            books.callbacks += [
                Callbacks(fsp, id_, name, rows=1, succeeded=1, arrived=1, different=1) for name in names
            ]
    books.positions = {
        f"{PAYER} USD POSITION": f"{plan.committed}, reserved 0",
        f"{PAYEE} USD POSITION": f"{-plan.committed}, reserved 0",
    }
    return books


def verdict_after(change: Callable[[Books], None], resends: dict[tuple[str, str], int] | None = None) -> Verdict:
    changed = deepcopy(books_of(PLAN))
    change(changed)
    return compare(PLAN, books_of(PLAN), changed, resends or {})


def changed_callback(books: Books, id_: str, fsp: str, **changes: int) -> None:
    """Change the row of the last callback of an entity to an FSP."""
    index = max(number for number, one in enumerate(books.callbacks) if (one.fsp, one.entity_id) == (fsp, id_))
    books.callbacks[index] = replace(books.callbacks[index], **changes)  # type: ignore[arg-type]  # only its numbers


def test_a_run_that_goes_as_planned_is_good() -> None:
    assert faults_of_reference(PLAN, books_of(PLAN), {}) == []
    assert verdict_after(lambda _: None) == Verdict()


def test_an_undisturbed_run_that_is_not_as_planned_is_no_reference() -> None:
    books = books_of(PLAN)
    whole = planned("whole").bulk_transfer_id
    books.items[whole] = (Item(ItemState.EXPIRED, "3303", ()), *books.items[whole][1:])
    books.histories[planned("mixed").bulk_transfer_id] = (BulkState.RECEIVED,)
    books.singles[single("reserved").transfer_id] = (TransferState.INVALID,)
    books.positions[f"{PAYEE} USD POSITION"] = "0, reserved 0"
    books.told[PAYER, planned("silent").bulk_transfer_id] = (Told("PUT", "committed", ""),)
    assert len(faults_of_reference(PLAN, books, {})) == 5


def test_what_is_silent_may_be_taken_too_late_only_where_its_request_was_sent_again() -> None:
    books = books_of(PLAN)
    side = (PAYER, planned("silent").bulk_transfer_id)
    too_late = Told("PUT_ERROR", "refused", "3100")
    books.told[side] = (too_late,)
    assert faults_of_reference(PLAN, books, {side: 1}) == []
    assert len(faults_of_reference(PLAN, books, {})) == 1
    books.told[side] = (too_late,) * 3
    assert len(faults_of_reference(PLAN, books, {side: 1})) == 1
    books.told[side] = ()
    assert len(faults_of_reference(PLAN, books, {side: 1})) == 1


def test_a_bulk_that_is_unknown_or_has_not_ended_is_lost_with_all_its_payments() -> None:
    whole, mixed = planned("whole"), planned("mixed")

    def forget(books: Books) -> None:
        del books.histories[whole.bulk_transfer_id], books.items[whole.bulk_transfer_id]
        books.histories[mixed.bulk_transfer_id] = books.histories[mixed.bulk_transfer_id][:-1]

    verdict = verdict_after(forget)
    assert verdict.lost == len(whole.transfer_ids) + len(mixed.transfer_ids)
    assert not verdict.is_good


def test_an_item_that_still_waits_is_lost() -> None:
    whole = planned("whole").bulk_transfer_id

    def hold(books: Books) -> None:
        first, *rest = books.items[whole]
        books.items[whole] = (replace(first, state=ItemState.ACCEPTED), *rest)

    assert verdict_after(hold).lost == 1


def test_a_payment_that_nobody_made_is_doubled() -> None:
    def invent(books: Books) -> None:
        books.singles["b3ba5d8d-0000-4000-8000-000000000000"] = (TransferState.COMMITTED,)
        books.items[planned("whole").bulk_transfer_id] *= 2

    assert verdict_after(invent).doubled >= 1 + len(planned("whole").transfer_ids)


def test_a_state_that_went_another_way_differs() -> None:
    def deviate(books: Books) -> None:
        books.singles[single("committed").transfer_id] = single("refused").script.states

    verdict = verdict_after(deviate)
    assert verdict.states_differing == 1
    assert not verdict.is_good


@pytest.mark.parametrize("fsp", [PAYER, PAYEE])
def test_an_outcome_that_never_came_is_missing(fsp: str) -> None:
    side = (fsp, planned("whole").bulk_transfer_id)
    verdict = verdict_after(lambda books: books.told.update({side: books.told[side][:-1]}))
    assert (verdict.outcomes_missing, verdict.outcomes_differing) == (1, 0)
    assert not verdict.is_good


def test_an_outcome_in_other_words_is_missing_and_differs() -> None:
    side = (PAYER, planned("mixed").bulk_transfer_id)
    verdict = verdict_after(lambda books: books.told.update({side: (Told("PUT", "other", ""),)}))
    assert (verdict.outcomes_missing, verdict.outcomes_differing, verdict.doubled) == (1, 1, 0)


def test_a_second_outcome_is_doubled_even_where_the_first_is_right() -> None:
    side = (PAYER, planned("mixed").bulk_transfer_id)
    verdict = verdict_after(lambda books: books.told.update({side: (*books.told[side], Told("PUT", "other", ""))}))
    assert (verdict.outcomes_missing, verdict.outcomes_differing, verdict.doubled) == (0, 1, 1)


def test_an_outcome_that_comes_before_the_request_differs() -> None:
    side = (PAYEE, planned("whole").bulk_transfer_id)
    verdict = verdict_after(lambda books: books.told.update({side: books.told[side][::-1]}))
    assert verdict.outcomes_differing == 1


def test_a_repeat_is_rightful_only_after_an_attempt_that_nobody_has_recorded() -> None:
    id_ = planned("whole").bulk_transfer_id
    rightful = verdict_after(lambda books: changed_callback(books, id_, PAYER, arrived=2, unrecorded=1))
    assert (rightful.callbacks_repeated, rightful.repeats_unexplained, rightful.is_good) == (1, 0, True)
    wrongful = verdict_after(lambda books: changed_callback(books, id_, PAYER, arrived=2))
    assert (wrongful.callbacks_repeated, wrongful.repeats_unexplained, wrongful.is_good) == (1, 1, False)


def test_a_repeat_in_other_bytes_is_a_fault() -> None:
    id_ = planned("whole").bulk_transfer_id
    verdict = verdict_after(lambda books: changed_callback(books, id_, PAYER, arrived=2, unrecorded=1, different=2))
    assert verdict.repeats_unexplained == 1


def test_an_answer_is_rightful_only_where_somebody_asked_again() -> None:
    side = (PAYER, planned("whole").bulk_transfer_id)

    def answer(books: Books) -> None:
        changed_callback(books, side[1], PAYER, rows=2, answers=1, succeeded=2, arrived=2, different=2)

    assert verdict_after(answer, {side: 1}).is_good
    assert verdict_after(answer).doubled == 1


def test_of_what_expires_only_the_outcome_is_compared() -> None:
    silent = planned("silent").bulk_transfer_id

    def expire_early(books: Books) -> None:
        books.told[PAYEE, silent] = ()
        books.histories[silent] = (*books.histories[silent][:2], BulkState.EXPIRING, BulkState.EXPIRED)
        books.items[silent] = tuple(replace(one, steps=()) for one in books.items[silent])

    assert verdict_after(expire_early).is_good
    unheard = verdict_after(lambda books: books.told.update({(PAYER, silent): ()}))
    assert unheard.outcomes_missing == 1


def test_money_that_is_not_where_it_was_is_a_fault() -> None:
    verdict = verdict_after(lambda books: books.positions.update({f"{PAYER} USD POSITION": "1, reserved 0"}))
    assert not verdict.positions_equal
    assert not verdict.is_good
