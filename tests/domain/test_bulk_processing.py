"""A bulk's outcome depends on what became of its items, never on the order in which that was told."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.bulk_processing import (
    ITEM_STATE_AFTER,
    BulkTally,
    FulfilOutcome,
    ItemNews,
    decide_bulk,
    decide_items,
    payer_is_told_an_error,
)
from domain.fspiop_errors import TRANSFER_EXPIRED, FspiopError
from domain.states import BulkState, ItemState, TransferState, is_final

REFUSED = FspiopError("4200", "Payer limit error")

PREPARE_NEWS = [("bulk-prepare", "success"), ("bulk-prepare", "error"), ("prepare-duplicate", "success")]
FULFIL_NEWS = [("bulk-commit", "success"), ("bulk-commit", "error"), ("reject", "success")]
EXPIRY_NEWS = [("bulk-timeout-reserved", "error")]


class Bulk:
    """A bulk in memory, moved as the handler moves it."""

    def __init__(self, items: int, state: BulkState, item_state: ItemState, outcome: FulfilOutcome | None) -> None:
        self.state = state
        self.items = dict.fromkeys(range(items), item_state)
        self.errors: dict[int, FspiopError | None] = {}
        self.outcome = outcome
        self.ends: list[BulkState] = []
        self.forwards = 0

    def hear(self, news: Sequence[tuple[int, str, str]]) -> None:
        batch = [
            ItemNews(1, key, action, status, TRANSFER_EXPIRED if "timeout" in action else REFUSED)
            for key, action, status in news
        ]
        steps = decide_items(batch, self.items, {})
        for step in steps:
            self.items[step.transfer_key] = step.to_state
            self.errors[step.transfer_key] = step.error
        if not steps:
            return
        expired = sum(
            1
            for key, error in self.errors.items()
            if error == TRANSFER_EXPIRED and self.items[key] is not ItemState.ACCEPTED
        )
        decided = decide_bulk(BulkTally(1, self.state, Counter(self.items.values()), expired, self.outcome))
        if decided is not None:
            self.state = decided.to_state
            self.forwards += decided.to_state is BulkState.ACCEPTED
            if is_final(decided.to_state):
                self.ends.append(decided.to_state)


@st.composite
def phase(draw: st.DrawFn, kinds: Sequence[tuple[str, str]]) -> tuple[list[tuple[int, str, str]], list[int], int]:
    """News for each item once, with repeats, in any order, cut into any batches."""
    count = draw(st.integers(1, 12))
    first = [(key, *draw(st.sampled_from(kinds))) for key in range(count)]
    repeats = draw(st.lists(st.sampled_from(first), max_size=8))
    order = draw(st.permutations(first + repeats))
    cuts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=10))
    return list(order), cuts, count


def deliver(bulk: Bulk, news: Sequence[tuple[int, str, str]], cuts: Sequence[int]) -> None:
    position = 0
    for turn in range(len(news)):
        size = cuts[turn % len(cuts)]
        if position < len(news):
            bulk.hear(news[position : position + size])
            position += size


@given(phase(PREPARE_NEWS))
def test_the_prepare_phase_closes_once_whatever_the_order(
    given_: tuple[list[tuple[int, str, str]], list[int], int],
) -> None:
    """BULK-25, BULK-120, D7, D8, D9."""
    news, cuts, count = given_
    bulk = Bulk(count, BulkState.PENDING_PREPARE, ItemState.RECEIVED, None)
    deliver(bulk, news, cuts)
    some = any(action == "bulk-prepare" and status == "success" for _, action, status in news)
    assert bulk.state is (BulkState.ACCEPTED if some else BulkState.REJECTED)
    assert (bulk.forwards, len(bulk.ends)) == ((1, 0) if some else (0, 1))


@given(phase(FULFIL_NEWS + EXPIRY_NEWS), st.sampled_from(FulfilOutcome))
def test_the_fulfil_phase_ends_once_whatever_the_order(
    given_: tuple[list[tuple[int, str, str]], list[int], int], outcome: FulfilOutcome
) -> None:
    """BULK-30, BULK-31, BULK-120, D7, D8, D9: any committed → COMPLETED; else expired → EXPIRED; else REJECTED."""
    news, cuts, count = given_
    bulk = Bulk(count, BulkState.PROCESSING, ItemState.ACCEPTED, outcome)
    deliver(bulk, news, cuts)
    final = set(bulk.items.values())
    if ItemState.COMPLETED in final:
        expected = BulkState.COMPLETED
    elif outcome is FulfilOutcome.INVALID:
        expected = BulkState.INVALID
    elif ItemState.EXPIRED in final:
        expected = BulkState.EXPIRED
    else:
        expected = BulkState.REJECTED
    assert bulk.ends == [expected]


@pytest.mark.parametrize("state", [BulkState.EXPIRING])
def test_expiring_waits_for_received_and_accepted_and_forwards_nothing(state: BulkState) -> None:
    bulk = Bulk(3, state, ItemState.RECEIVED, None)
    bulk.hear([(0, "bulk-prepare", "success")])
    bulk.hear([(1, "bulk-timeout-received", "error")])
    bulk.hear([(2, "bulk-timeout-reserved", "error")])
    assert (bulk.state, bulk.forwards) == (BulkState.EXPIRING, 0)
    bulk.hear([(0, "bulk-timeout-reserved", "error")])
    assert bulk.ends == [BulkState.EXPIRED]


def test_an_item_expires_unreserved_only_if_no_reservation_can_follow() -> None:
    news = [ItemNews(1, key, "bulk-timeout-received", "error", TRANSFER_EXPIRED) for key in range(4)]
    items = dict.fromkeys(range(4), ItemState.RECEIVED)
    transfers = {1: TransferState.RECEIVED_PREPARE, 2: TransferState.RESERVED, 3: TransferState.EXPIRED_PREPARED}
    assert [step.transfer_key for step in decide_items(news, items, transfers)] == [0, 3]


def test_every_combination_for_bulk_processing_has_its_item_state() -> None:  # BULK-82
    from domain.combinations import EXTENSIONS, SEED_COMBINATIONS, TOPIC_BULK_PROCESSING

    on_topic = {
        (one.action, one.status) for one in (*SEED_COMBINATIONS, *EXTENSIONS) if one.topic == TOPIC_BULK_PROCESSING
    }
    assert on_topic == set(ITEM_STATE_AFTER)


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        (BulkState.INVALID, FulfilOutcome.INVALID, True),
        (BulkState.REJECTED, FulfilOutcome.ERROR, True),
        (BulkState.REJECTED, FulfilOutcome.REJECTED, False),
        (BulkState.REJECTED, None, False),
        (BulkState.EXPIRED, FulfilOutcome.ERROR, False),
        (BulkState.COMPLETED, FulfilOutcome.VALID, False),
    ],
)
def test_which_callback_the_payer_gets(state: BulkState, outcome: FulfilOutcome | None, *, expected: bool) -> None:
    assert payer_is_told_an_error(state, outcome) is expected
