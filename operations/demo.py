"""The demo: a bulk of a thousand payments from its POST to both callbacks, on this machine alone.

    1. the embedded world starts in a data folder of its own (`operations.world`, on the main thread); with `--real` it has
       its database, topics and objects on the services that run (`operations.demo_parts`)
    2. two FSPs are provisioned: accounts, limits, funds, endpoints
    3. two simulated FSPs listen in this process; the payee will commit 800 of what it gets and refuse the rest
    4. the payer posts one bulk of 1,000 (`operations.demo_bulk` says which of them cannot be reserved)
    5. the items are watched on their way, until both sides have their final callback
    6. what happened is read from the database and from what the FSPs received, and both have to agree

Everything ends with the demo, unless it is kept; what a killed demo leaves (PostgreSQL, and its folder) the next one clears.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID, uuid4

import httpx
from sqlalchemy import Engine

from bulk_api_adapter.admin.funds import FundsOrder, funds_in
from bulk_api_adapter.admin.participants import list_participants, read_participant
from bulk_api_adapter.admin.provision import provision_fsp
from db.accounts import POSITION, SETTLEMENT, AccountDetails
from domain.money import format_amount
from domain.states import BulkState, ItemState, is_final
from operations import demo_bulk
from operations.bulk_story import BulkStory, count_items_by_state, read_bulk_story
from operations.opening import opened_engine
from operations.settings import Settings
from operations.simulated_fsp import PayeeBehaviour, SimulatedPayee, SimulatedPayer, callback_endpoints, served
from operations.world import fspiop_url, run_world
from operations.world_file import World

# Longer than the world itself waits (operations/world.py), which then says what is not well.
_WORLD_WAIT_S = 150.0
_BULK_WAIT_S = 150.0
_POLL_S = 0.05
_EXPIRES_IN_MS = 300_000

Positions = dict[str, dict[str, str]]


class DemoFailed(Exception):
    """The bulk did not end as it should; the text says what is missing."""


class Stopped(Exception):
    """Somebody ended the demo before it was over."""


class Watcher(Protocol):
    """Whoever watches the demo."""

    def say(self, line: str) -> None:
        """Something has happened."""

    def show(self, items: Mapping[str, int]) -> None:
        """How many items are in each state now."""


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What happened; the counts are items. `seconds` is by phase, `bulk` from the POST to the last callback."""

    world: World
    story: BulkStory
    sent: int
    reserved: int
    committed: int
    aborted: int
    refused: int
    payer_callbacks: int
    payee_requests: int
    payee_callbacks: int
    repeats: int
    positions_before: Positions
    positions_after: Positions
    seconds: dict[str, float]
    # What the payer's one PUT lists: results in the request's order, fulfilled and not.
    results_in_request_order: bool
    results_fulfilled: int
    results_with_error: int


def run_demo(settings: Settings, stop: threading.Event, watcher: Watcher, then: Callable[[DemoOutcome], None]) -> None:
    """Run the world, play the bulk in it, hand what happened to `then`, end the world.

    Called on the main thread; `then` is called on another one while the world still runs. Raises DemoFailed, Stopped
    and what run_world raises.
    """
    play = _Play(settings, stop, watcher, then)
    thread = threading.Thread(target=play.run, name="demo")
    thread.start()
    try:
        watcher.say(f"starting the switch in {settings.data_folder}")
        run_world(settings, stop, watcher.say, play.on_ready)
    finally:
        stop.set()
        thread.join()
    if play.error is not None:
        raise play.error


class _Play:
    """The part of the demo that goes on while the main thread looks after the world."""

    def __init__(
        self, settings: Settings, stop: threading.Event, watcher: Watcher, then: Callable[[DemoOutcome], None]
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._watcher = watcher
        self._then = then
        self._world: World | None = None
        self._seconds: dict[str, float] = {}
        self._began = time.monotonic()
        self.error: Exception | None = None

    def on_ready(self, world: World) -> None:
        """Called by the main thread."""
        self._world = world

    def run(self) -> None:
        try:
            self._then(self._play())
        except Exception as error:
            self.error = error
        finally:
            self._stop.set()

    def _play(self) -> DemoOutcome:
        with ExitStack() as stack:
            payer = SimulatedPayer(demo_bulk.PAYER_FSP, fspiop_url(self._settings))
            stack.callback(payer.close_client)
            payee = SimulatedPayee(
                demo_bulk.PAYEE_FSP,
                fspiop_url(self._settings),
                behaviour=PayeeBehaviour(commit_max=demo_bulk.COMMITTED, error_description="Payee rejection - salary"),
            )
            urls = {one.name: stack.enter_context(served(one)) for one in (payer, payee)}
            self._wait("the world", lambda: self._world, _WORLD_WAIT_S)
            assert self._world is not None
            self._phase("world")
            settings = self._settings.model_copy(update={"database_url": self._world.database_url})
            engine = stack.enter_context(opened_engine(settings, "demo", pool_size=2))
            provision(engine, urls)
            self._phase("provision")
            before = read_positions(engine)
            bulk_transfer_id, transfer_ids = self._post(payer)
            self._watch(engine, bulk_transfer_id, payer, payee)
            self._seconds["total"] = round(time.monotonic() - self._began, 3)
            return self._outcome(engine, bulk_transfer_id, transfer_ids, payer, payee, before)

    def _post(self, payer: SimulatedPayer) -> tuple[UUID, tuple[str, ...]]:
        salaries = demo_bulk.salaries()
        bulk = payer.build(
            demo_bulk.PAYEE_FSP,
            items=demo_bulk.ITEMS,
            amount=salaries.amounts,
            currency=salaries.currencies,
            expires_in_ms=_EXPIRES_IN_MS,
        )
        self._watcher.say(f"POST /bulkTransfers: {demo_bulk.ITEMS:,} payments, {len(bulk.body):,} bytes")
        began = time.monotonic()
        try:
            answer = payer.post(bulk)
        except httpx.HTTPError as error:
            raise DemoFailed(f"the switch does not answer: {error}") from error
        self._seconds["post"] = round(time.monotonic() - began, 3)
        if answer.status != httpx.codes.ACCEPTED:
            raise DemoFailed(f"the switch answered {answer.status}: {answer.body.decode(errors='replace')}")
        self._watcher.say("202 Accepted")
        return UUID(bulk.bulk_transfer_id), bulk.transfer_ids

    def _watch(self, engine: Engine, bulk_transfer_id: UUID, payer: SimulatedPayer, payee: SimulatedPayee) -> None:
        """Until both sides have their final callback, and the database knows that they do."""

        def is_over() -> bool:
            with engine.connect() as tx:
                self._watcher.show(count_items_by_state(tx, bulk_transfer_id))
                if not (payer.received(str(bulk_transfer_id)) and len(payee.received(str(bulk_transfer_id))) > 1):
                    return False
                story = read_bulk_story(tx, bulk_transfer_id)
            return (
                story is not None
                and is_final(story.state)
                and all(one.delivery.finished_date is not None for one in story.callbacks)
            )

        self._wait("both final callbacks", is_over, _BULK_WAIT_S)

    def _outcome(
        self,
        engine: Engine,
        bulk_transfer_id: UUID,
        transfer_ids: tuple[str, ...],
        payer: SimulatedPayer,
        payee: SimulatedPayee,
        before: Positions,
    ) -> DemoOutcome:
        with engine.connect() as tx:
            story = read_bulk_story(tx, bulk_transfer_id)
        assert story is not None
        assert self._world is not None
        # What came again byte for byte is the same callback: its answer was lost, or not recorded in time.
        told = [one for one in payer.received(str(bulk_transfer_id)) if not one.is_repeat]
        to_payee = [one for one in payee.received(str(bulk_transfer_id)) if not one.is_repeat]
        requests = [one for one in to_payee if one.callback == "POST"]
        results: list[dict[str, Any]] = told[0].json().get("individualTransferResults", [])
        fulfilled = sum("fulfilment" in one for one in results)
        items = story.items_by_state()
        outcome = DemoOutcome(
            world=self._world,
            story=story,
            sent=story.item_count,
            reserved=len(requests[0].json()["individualTransfers"]),
            committed=items.get(ItemState.COMPLETED, 0),
            aborted=items.get(ItemState.REJECTED, 0),
            refused=items.get(ItemState.RECEIVED_INVALID, 0),
            payer_callbacks=len(told),
            payee_requests=len(requests),
            payee_callbacks=len(to_payee) - len(requests),
            repeats=payer.repeats + payee.repeats,
            positions_before=before,
            positions_after=read_positions(engine),
            seconds=self._seconds | _bulk_seconds(story),
            results_in_request_order=[one["transferId"] for one in results] == list(transfer_ids),
            results_fulfilled=fulfilled,
            results_with_error=len(results) - fulfilled,
        )
        _require_the_example(outcome)
        return outcome

    def _phase(self, name: str) -> None:
        done = sum(self._seconds.values())
        self._seconds[name] = round(time.monotonic() - self._began - done, 3)

    def _wait(self, what: str, condition: Callable[[], object], wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while not condition():
            if self._stop.wait(_POLL_S):
                raise Stopped
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what} did not come within {wait_s:.0f} s; see {self._settings.data_folder}/logs")


def provision(engine: Engine, urls: Mapping[str, str]) -> None:
    """Both FSPs, with room for exactly this bulk above where they stand now."""
    value = {
        name: {one.ledger_account_type: one.value for one in _accounts(engine, name)}
        for name in (demo_bulk.PAYER_FSP, demo_bulk.PAYEE_FSP)
    }
    for name in (demo_bulk.PAYER_FSP, demo_bulk.PAYEE_FSP):
        position = max(value[name].get(POSITION, 0), 0)
        endpoints = callback_endpoints(urls[name])
        provision_fsp(engine, name, demo_bulk.CURRENCY, position + demo_bulk.NET_DEBIT_CAP, 0, endpoints)
    position = value[demo_bulk.PAYER_FSP].get(POSITION, 0)
    cover = -value[demo_bulk.PAYER_FSP].get(SETTLEMENT, 0)
    missing = position + demo_bulk.COVER - cover
    if missing > 0:
        order = FundsOrder(uuid4(), missing, demo_bulk.CURRENCY, reason="demo")
        [account] = [one for one in _accounts(engine, demo_bulk.PAYER_FSP) if one.ledger_account_type == SETTLEMENT]
        funds_in(engine, demo_bulk.PAYER_FSP, account.account_id, order, actor="demo")


def _accounts(engine: Engine, name: str) -> list[AccountDetails]:
    """An FSP's accounts in the demo's currency; none when it is not known yet."""
    for details in list_participants(engine):
        if details.participant.name == name:
            return [one for one in details.accounts if one.currency == demo_bulk.CURRENCY]
    return []


def read_positions(engine: Engine) -> Positions:
    """What each FSP's position is, per currency."""
    return {
        name: {
            one.currency: format_amount(one.value)
            for one in read_participant(engine, name).accounts
            if one.ledger_account_type == POSITION
        }
        for name in (demo_bulk.PAYER_FSP, demo_bulk.PAYEE_FSP)
    }


def _bulk_seconds(story: BulkStory) -> dict[str, float]:
    """The bulk's own phases, by the times of its steps in the database."""
    at = {step.to_state: step.at for step in story.steps}
    told = max(one.delivery.finished_date or one.delivery.created_date for one in story.callbacks)
    marks = {
        "reserve": (story.received, at[BulkState.ACCEPTED]),
        "payee": (at[BulkState.ACCEPTED], at[BulkState.PROCESSING]),
        "fulfil": (at[BulkState.PROCESSING], at[story.state]),
        "callbacks": (at[story.state], told),
        "bulk": (story.received, told),
    }
    return {name: round((end - begin).total_seconds(), 3) for name, (begin, end) in marks.items()}


def _require_the_example(outcome: DemoOutcome) -> None:
    """BULK-09, BULK-131: what the rows say, and what the FSPs were told, once, is the example."""
    reserved = demo_bulk.COMMITTED + demo_bulk.ABORTED
    _require(
        "sent, reserved, committed, aborted and refused",
        (outcome.sent, outcome.reserved, outcome.committed, outcome.aborted, outcome.refused),
        (demo_bulk.ITEMS, reserved, demo_bulk.COMMITTED, demo_bulk.ABORTED, demo_bulk.REFUSED),
    )
    _require(
        "the payer's results with a fulfilment and with an error, and whether they are in the request's order",
        (outcome.results_fulfilled, outcome.results_with_error, outcome.results_in_request_order),
        (demo_bulk.COMMITTED, demo_bulk.ABORTED + demo_bulk.REFUSED, True),
    )
    _require(
        "the payer's callbacks, the payee's requests and the payee's callbacks",
        (outcome.payer_callbacks, outcome.payee_requests, outcome.payee_callbacks),
        (1, 1, 1),
    )


def _require(what: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise DemoFailed(f"{what} are {found}, not {wanted}")
