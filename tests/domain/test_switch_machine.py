"""Whatever is delivered late, twice, out of order or to whichever worker, bulks end once and no money is lost."""

import threading
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain.bulk_fulfil import FulfilRequest, FulfilVerdict
from domain.bulk_processing import BulkTally, FulfilOutcome, ItemNews, decide_bulk, decide_items
from domain.fspiop_errors import FspiopError
from domain.position import Step
from domain.states import BulkState, ItemState, TransferState, is_final
from tests.domain.memory_switch import (
    PAYEE_ACCOUNT,
    PAYER_ACCOUNT,
    TOPICS,
    Account,
    Bulk,
    MemorySwitch,
    answers_of,
)

KINDS = ["commit", "commit", "refuse", "wrong", "missing", "omit"]
LIFETIME_MS = 1_000
LIMITS = st.sampled_from([200, 200, 200, 40, 0])
AMOUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=4)
# What a payee's answer says as a whole.
ANSWERS: list[dict[str, Any]] = [
    *[{"state": "COMPLETED"}] * 6,
    {"state": "REJECTED"},
    {"state": None, "error": FspiopError("5100", "No")},
    {"state": "COMPLETED", "completed_ms": 10**15},
    {"state": "PROCESSING"},
]


class Switch(RuleBasedStateMachine):
    """D3, D7, D8, D9, D14, D17, X-35, BULK-120, BULK-121, BULK-122, BULK-127, BULK-130, BULK-135.

    Every batch is a draw from all messages that were ever sent: some never read, some read before; any order, any size.
    In between limits are lowered, funds move, time passes, the clock ticks and payees answer, more than once.
    """

    @initialize(limits=st.tuples(LIMITS, LIMITS), amounts=AMOUNTS)
    def begin(self, limits: tuple[int, int], amounts: list[int]) -> None:
        cover, cap = limits
        self.switch = MemorySwitch(cover=cover, cap=cap)
        self.ids = 0
        self.a_payer_posts(amounts, reused=False)

    @rule(amounts=AMOUNTS, reused=st.booleans())
    @precondition(lambda self: len(self.switch.bulks) < 4)
    def a_payer_posts(self, amounts: list[int], reused: bool) -> None:
        ids = [(self.ids + number).to_bytes(16, "big") for number in range(len(amounts))]
        self.ids += len(ids)
        if reused and self.switch.bulks:
            ids[0] = next(iter(self.switch.bulks[1].transfer_ids))
        self.switch.post(ids, amounts, LIFETIME_MS)

    @rule(data=st.data(), topic=st.sampled_from(TOPICS), catches_up=st.booleans())
    def a_worker_reads_a_batch(self, data: st.DataObject, topic: str, catches_up: bool) -> None:
        if not self.switch.bag[topic]:
            return
        places = st.integers(0, len(self.switch.bag[topic]) - 1)
        batch = data.draw(st.lists(places, min_size=1, max_size=6))
        self.switch.handle(topic, batch + self.switch.unread[topic] if catches_up else batch)

    @rule(held=st.sampled_from([None, None, *TOPICS]))
    def all_workers_but_one_catch_up(self, held: str | None) -> None:
        self.switch.drain(held)

    @rule(data=st.data(), held=st.sampled_from([None, *TOPICS]))
    @precondition(lambda self: BulkState.ACCEPTED in self.states())
    def the_payee_answers(self, data: st.DataObject, held: str | None) -> None:
        waiting = [bulk for bulk in self.switch.bulks.values() if bulk.state is BulkState.ACCEPTED]
        self._answer(data, data.draw(st.sampled_from(waiting)), "payee")
        self.switch.drain(held)

    @rule(data=st.data(), source=st.sampled_from(["payee", "payer", "stranger"]))
    def somebody_answers(self, data: st.DataObject, source: str) -> None:
        self._answer(data, data.draw(st.sampled_from(list(self.switch.bulks.values()))), source)

    def _answer(self, data: st.DataObject, bulk: Bulk, source: str) -> None:
        items = self.switch.items
        kinds = [
            data.draw(st.sampled_from(KINDS)) if items[key] is ItemState.ACCEPTED else "omit"
            for key in bulk.transfer_ids.values()
        ]
        answer = {"error": None, "completed_ms": None, **data.draw(st.sampled_from(ANSWERS))}
        # Two bodies that differ have two hashes.
        answered = FulfilRequest(**answer, answers=answers_of(bulk, kinds), hash=repr((answer, kinds)).encode())
        verdict = self.switch.put(bulk, answered, source=source)
        assert source == "payee" or verdict is FulfilVerdict.ANSWER_ERROR

    @rule(cap=LIMITS, change=st.integers(-90, 90))
    def an_operator_sets_the_cap_and_moves_funds(self, cap: int, change: int) -> None:
        """Funds go out only as far as the cover that is left carries the position (domain/funds.py)."""
        account = self.switch.accounts[PAYER_ACCOUNT]
        account.cap = cap
        if account.cover + change >= max(account.value, 0):
            account.cover += change

    @rule(passed_ms=st.sampled_from([1, LIFETIME_MS // 3]))
    def time_passes_and_the_clock_ticks(self, passed_ms: int) -> None:
        self.switch.now_ms += passed_ms
        self.switch.tick()

    def states(self) -> set[BulkState]:
        return {bulk.state for bulk in self.switch.bulks.values()}

    @invariant()
    def positions_are_what_the_steps_say(self) -> None:
        values = {PAYER_ACCOUNT: 0, PAYEE_ACCOUNT: 0}
        for step, amount in self.switch.moves:
            change = _change_of(step, amount)
            if change:
                values[step.account_id] += change
                assert step.position is not None
        assert values == {key: account.value for key, account in self.switch.accounts.items()}

    @invariant()
    def nothing_is_reserved_or_told_twice(self) -> None:
        assert set(self.switch.reserved_ever.values()) <= {1}
        for bulk in self.switch.bulks.values():
            assert bulk.forwards <= 1
            assert len(bulk.ends) == is_final(bulk.state)

    def teardown(self) -> None:
        """Time runs out for everything; what was lost is derived again by the clock."""
        if not hasattr(self, "switch"):
            return
        self.switch.now_ms += LIFETIME_MS
        # Messages that nobody has read until now are lost: the outcome must not need them.
        for topic in TOPICS:
            self.switch.unread[topic].clear()
        for _ in range(4):
            self.switch.tick()
            self.switch.drain()
        for bulk in self.switch.bulks.values():
            assert bulk.ends == [bulk.state], "every bulk ends, once"
            self._assert_outcome(bulk)
        committed = self._sum({TransferState.COMMITTED})
        payer, payee = (self.switch.accounts[id_].value for id_ in (PAYER_ACCOUNT, PAYEE_ACCOUNT))
        assert (payer, payee) == (committed, -committed), "zero-sum: all that was not committed has gone back"
        self.positions_are_what_the_steps_say()

    def _assert_outcome(self, bulk: Bulk) -> None:
        """BULK-31, BULK-44, X-30: a function of the rows, and reserved = committed + released."""
        items = [self.switch.items[key] for key in bulk.transfer_ids.values()]
        assert not {ItemState.RECEIVED, ItemState.ACCEPTED} & set(items)
        assert (ItemState.COMPLETED in items) == (bulk.state is BulkState.COMPLETED)
        for key in bulk.transfer_ids.values():
            transfer = self.switch.transfers.get(key)
            committed = transfer is not None and transfer.state is TransferState.COMMITTED
            assert committed == (self.switch.items[key] is ItemState.COMPLETED)
            if transfer is not None and self.switch.reserved_ever[key]:
                assert transfer.state in {
                    TransferState.COMMITTED,
                    TransferState.ABORTED_ERROR,
                    TransferState.EXPIRED_RESERVED,
                }

    def _sum(self, states: set[TransferState]) -> int:
        return sum(one.amount for one in self.switch.transfers.values() if one.state in states)


def _change_of(step: Step, amount: int) -> int:
    match step.to_state:
        case TransferState.RESERVED:
            return amount
        case TransferState.COMMITTED | TransferState.ABORTED_ERROR | TransferState.EXPIRED_RESERVED:
            return -amount
        case _:
            return 0


TestSwitch = pytest.mark.timeout(600)(Switch.TestCase)
TestSwitch.settings = settings(max_examples=300, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])


class SharedRows:
    """A bulk of many items under one row lock, as bulk-processing's workers see it."""

    def __init__(self, items: int) -> None:
        self.lock = threading.Lock()
        self.state = BulkState.PENDING_PREPARE
        self.items = dict.fromkeys(range(items), ItemState.RECEIVED)
        self.tally = Counter(self.items.values())
        self.outcome: FulfilOutcome | None = None
        self.told: list[BulkState] = []

    def hear(self, batch: list[ItemNews]) -> None:
        with self.lock:
            steps = decide_items(batch, {one.transfer_key: self.items[one.transfer_key] for one in batch}, {})
            for step in steps:
                self.tally[self.items[step.transfer_key]] -= 1
                self.tally[step.to_state] += 1
                self.items[step.transfer_key] = step.to_state
            if steps:
                self._decide()

    def _decide(self) -> None:
        step = decide_bulk(BulkTally(1, self.state, self.tally, 0, self.outcome))
        if step is not None:
            self.state = step.to_state
            if step.to_state is BulkState.ACCEPTED or is_final(step.to_state):
                self.told.append(step.to_state)


def eight_workers(rows: SharedRows, news: list[ItemNews], chance: Random) -> None:
    """Each message is read at least once; every fourth a second time, by whichever worker, whenever."""
    news = news + chance.sample(news, len(news) // 4)
    chance.shuffle(news)
    shares = [news[worker::8] for worker in range(8)]
    sizes = [chance.randint(1, 700) for _ in shares]

    def work(share: list[ItemNews], size: int) -> None:
        for start in range(0, len(share), size):
            rows.hear(share[start : start + size])

    workers = [threading.Thread(target=work, args=pair) for pair in zip(shares, sizes, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_100_000_members_8_workers_and_redelivery_make_one_notification_per_phase() -> None:  # BULK-120, D7, D8, D9
    chance = Random(120)
    rows = SharedRows(100_000)
    reserved = [ItemNews(1, key, "bulk-prepare", "error" if key % 10 == 0 else "success", None) for key in rows.items]
    eight_workers(rows, reserved, chance)
    assert rows.told == [BulkState.ACCEPTED]
    rows.state, rows.outcome = BulkState.PROCESSING, FulfilOutcome.VALID
    answered = [
        ItemNews(1, key, *(("reject", "success") if key % 7 == 0 else ("bulk-commit", "success")), None)
        for key in rows.items
    ]
    # News of the first phase comes once more in the second.
    eight_workers(rows, answered + chance.sample(reserved, 5_000), chance)
    assert rows.told == [BulkState.ACCEPTED, BulkState.COMPLETED]
    assert {state: count for state, count in rows.tally.items() if count} == {
        ItemState.RECEIVED_INVALID: 10_000,
        ItemState.REJECTED: sum(1 for key in range(100_000) if key % 10 and key % 7 == 0),
        ItemState.COMPLETED: sum(1 for key in range(100_000) if key % 10 and key % 7),
    }


def test_the_accounts_start_empty() -> None:
    """The machine's own start: nobody owes anything, and a payer without a cap may reserve nothing."""
    switch = MemorySwitch(cover=100, cap=100)
    switch.accounts[PAYER_ACCOUNT] = Account(cover=100)
    bulk = switch.post([b"a" * 16], [1], LIFETIME_MS)
    switch.drain()
    assert bulk.ends == [BulkState.REJECTED]
    assert {account.value for account in switch.accounts.values()} == {0}
