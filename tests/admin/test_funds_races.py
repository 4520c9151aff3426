"""Funds of one account are recorded one after the other, whatever happens at the same moment."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

from sqlalchemy import Connection, Engine, text

from bulk_api_adapter.admin.funds import (
    FundsOrder,
    funds_in,
    funds_out_abort,
    funds_out_commit,
    funds_out_reserve,
)
from bulk_api_adapter.admin.limits import set_limit
from bulk_api_adapter.admin.participants import read_participant
from db.accounts import POSITION, SETTLEMENT, AccountDetails
from db.audit import read_audit
from db.positions import lock_positions
from domain.money import parse_amount
from schemas.fspiop.errors import Refusal

THREADS = 8
WAIT_S = 60


def account(engine: Engine, name: str, type_: str) -> AccountDetails:
    accounts = read_participant(engine, name).accounts
    return next(account for account in accounts if account.ledger_account_type == type_)


def at_once(calls: list[Callable[[], None]]) -> list[str | None]:
    """Run the calls at the same moment, a thread each; the code of each one's refusal, None where it passed."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> str | None:
        barrier.wait(WAIT_S)
        try:
            call()
        except Refusal as refusal:
            return refusal.error.code
        return None

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def wait_for_a_waiter(connection: Connection) -> None:
    """Return once another connection waits for a lock."""
    for _ in range(2_000):
        waiting = connection.execute(
            text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
        )
        if waiting.scalar_one():
            return
        threading.Event().wait(0.005)
    raise AssertionError("nobody waits")


def test_funds_out_at_once_never_take_more_than_there_is(engine: Engine, fsp: str) -> None:  # BULK-122
    settlement = account(engine, fsp, SETTLEMENT).account_id
    orders = [FundsOrder(uuid4(), parse_amount("300")) for _ in range(THREADS)]
    refusals = at_once([partial(funds_out_reserve, engine, fsp, settlement, order, actor="test") for order in orders])
    # 1,000 are there, so three of eight pass.
    assert sorted(code or "" for code in refusals) == [""] * 3 + ["4001"] * 5
    assert account(engine, fsp, SETTLEMENT).value == -parse_amount("100")


def test_the_same_request_at_once_is_done_once(engine: Engine, fsp: str) -> None:
    settlement = account(engine, fsp, SETTLEMENT).account_id
    order = FundsOrder(uuid4(), parse_amount("5"), "USD")
    refusals = at_once([lambda: funds_in(engine, fsp, settlement, order, actor="race")] * THREADS)
    assert refusals == [None] * THREADS
    assert account(engine, fsp, SETTLEMENT).value == -parse_amount("1005")
    with engine.connect() as connection:
        assert [audit.actor for audit in read_audit(connection)].count("race") == 1


def test_a_commit_and_an_abort_at_once_end_it_once(engine: Engine, fsp: str) -> None:
    settlement = account(engine, fsp, SETTLEMENT).account_id
    order = FundsOrder(uuid4(), parse_amount("300"))
    funds_out_reserve(engine, fsp, settlement, order, actor="test")
    refusals = at_once(
        [
            lambda: funds_out_commit(engine, fsp, settlement, order.transfer_id, actor="test"),
            lambda: funds_out_abort(engine, fsp, settlement, order.transfer_id, actor="test"),
        ]
    )
    committed, aborted = refusals
    assert (committed, aborted) in {(None, "3100"), ("3100", None)}
    left = -account(engine, fsp, SETTLEMENT).value
    reconciled = account(engine, "Hub", "HUB_RECONCILIATION").value
    expected = (parse_amount("700"), parse_amount("700")) if committed is None else (parse_amount("1000"),) * 2
    assert (left, reconciled) == expected


def test_funds_out_waits_for_a_reservation_and_sees_what_it_took(engine: Engine, fsp: str) -> None:
    """The position handler holds the accounts while it reserves; what goes out is judged by what it left."""
    position, settlement = account(engine, fsp, POSITION).account_id, account(engine, fsp, SETTLEMENT).account_id
    order = FundsOrder(uuid4(), parse_amount("600"))
    with ThreadPoolExecutor(1) as threads:
        with engine.begin() as handler:
            lock_positions(handler, [position, settlement])
            funds_out = threads.submit(funds_out_reserve, engine, fsp, settlement, order, actor="test")
            wait_for_a_waiter(handler)
            handler.execute(
                text("UPDATE participant_position SET value = 500 WHERE participant_currency_id = :id"),
                {"id": position},
            )
        error = funds_out.exception(WAIT_S)
    assert isinstance(error, Refusal)
    assert error.error.code == "4001"
    assert account(engine, fsp, SETTLEMENT).value == -parse_amount("1000")


def test_a_new_limit_waits_for_a_reservation_under_the_old_one(engine: Engine, fsp: str) -> None:
    position = account(engine, fsp, POSITION).account_id
    with ThreadPoolExecutor(1) as threads:
        with engine.begin() as handler:
            lock_positions(handler, [position])
            changed = threads.submit(set_limit, engine, fsp, "USD", parse_amount("1"), actor="test")
            wait_for_a_waiter(handler)
            assert not changed.done()
        assert changed.result(WAIT_S).value == parse_amount("1")
