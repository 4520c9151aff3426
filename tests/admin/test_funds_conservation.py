"""Whatever acts come in whatever order: what stands on the accounts is what came in minus what went out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from bulk_api_adapter.admin.funds import FundsOrder, funds_in, funds_out_abort, funds_out_commit, funds_out_reserve
from bulk_api_adapter.admin.participants import hub_accounts, set_active
from bulk_api_adapter.admin.provision import provision_fsp
from db.accounts import HUB_RECONCILIATION, SETTLEMENT, accounts_of_participants
from domain.funds import FundsAction
from schemas.fspiop.errors import Refusal

FSPS = ("payerfsp", "payeefsp")
IDS = tuple(UUID(int=number) for number in range(1, 7))


@dataclass
class Ledger:
    """What a careful clerk would write down beside the switch. Amounts are counts of 1/10,000."""

    cover: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FSPS, 0))
    bank: int = 0
    reserved: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    ended: dict[UUID, FundsAction] = field(default_factory=dict)
    seen: dict[UUID, tuple[str, FundsAction, int]] = field(default_factory=dict)
    active: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(FSPS, True))

    def begin(self, transfer: UUID, fsp: str, action: FundsAction, amount: int) -> bool:
        """Whether the switch should accept it."""
        if transfer in self.seen:
            return self.seen[transfer] == (fsp, action, amount)
        if not self.active[fsp] or (action is FundsAction.OUT_PREPARE_RESERVE and amount > self.cover[fsp]):
            return False
        self.seen[transfer] = (fsp, action, amount)
        if action is FundsAction.IN:
            self.cover[fsp] += amount
            self.bank += amount
        else:
            self.cover[fsp] -= amount
            self.reserved[transfer] = (fsp, amount)
        return True

    def end(self, transfer: UUID, fsp: str, action: FundsAction) -> bool:
        if transfer in self.ended:
            return self.ended[transfer] is action and self.seen[transfer][0] == fsp
        if transfer not in self.reserved or self.reserved[transfer][0] != fsp:
            return False
        _, amount = self.reserved.pop(transfer)
        self.ended[transfer] = action
        if action is FundsAction.OUT_COMMIT:
            self.bank -= amount
        else:
            self.cover[fsp] += amount
        return True


AMOUNTS = st.sampled_from([1, 9_999, 10_000, 35_000]) | st.integers(1, 50_000)
BEGINS = st.tuples(
    st.sampled_from([FundsAction.IN, FundsAction.OUT_PREPARE_RESERVE]),
    st.sampled_from(IDS),
    st.sampled_from(FSPS),
    AMOUNTS,
)
ENDS = st.tuples(
    st.sampled_from([FundsAction.OUT_COMMIT, FundsAction.OUT_ABORT]),
    st.sampled_from(IDS),
    st.sampled_from(FSPS),
    st.just(0),
)
SWITCHES = st.tuples(st.just(None), st.just(IDS[0]), st.sampled_from(FSPS), st.integers(0, 1))


@pytest.fixture
def settlement(engine: Engine) -> dict[str, int]:
    """The SETTLEMENT account of each FSP."""
    found = {}
    for name in FSPS:
        details = provision_fsp(engine, name, "USD", 0, 0, {})
        found[name] = next(a.account_id for a in details.accounts if a.ledger_account_type == SETTLEMENT)
    return found


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(BEGINS | ENDS | SWITCHES, min_size=4, max_size=16))
def test_the_accounts_hold_what_came_in_minus_what_went_out(
    engine: Engine, settlement: dict[str, int], acts: list[tuple[FundsAction | None, UUID, str, int]]
) -> None:
    start, ledger = values(engine), Ledger()
    # Every example under ids of its own, on top of what the examples before it left.
    ids = {transfer: uuid4() for transfer in IDS}
    for name in FSPS:
        set_active(engine, name, is_active=True, actor="test")
        ledger.cover[name] = -start[name]
    for action, transfer, name, number in acts:
        match action:
            case None:
                set_active(engine, name, is_active=bool(number), actor="test")
                ledger.active[name] = bool(number)
            case FundsAction.IN | FundsAction.OUT_PREPARE_RESERVE:
                act = funds_in if action is FundsAction.IN else funds_out_reserve
                order = FundsOrder(ids[transfer], number)
                passed = passes(partial(act, engine, name, settlement[name], order, actor="test"))
                assert passed == ledger.begin(transfer, name, action, number)
            case _:
                end = funds_out_commit if action is FundsAction.OUT_COMMIT else funds_out_abort
                passed = passes(partial(end, engine, name, settlement[name], ids[transfer], actor="test"))
                assert passed == ledger.end(transfer, name, action)
    now = values(engine)
    assert {name: -now[name] for name in FSPS} == ledger.cover
    assert now[HUB_RECONCILIATION] - start[HUB_RECONCILIATION] == ledger.bank
    # The bank holds what covers the participants, and what is on its way out.
    on_its_way = sum(amount for _, amount in ledger.reserved.values())
    moved = sum(now.values()) - sum(start.values())
    assert moved == on_its_way


def values(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        found = {
            account.participant: account.value
            for account in accounts_of_participants(connection, FSPS)
            if account.ledger_account_type == SETTLEMENT
        }
        [hub] = [a.value for a in hub_accounts(connection) if a.ledger_account_type == HUB_RECONCILIATION]
    return {**found, HUB_RECONCILIATION: hub}


def passes(act: Callable[[], None]) -> bool:
    try:
        act()
    except Refusal:
        return False
    return True
