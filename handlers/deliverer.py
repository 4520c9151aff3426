"""The deliverer: a process that sends the callbacks which notification wrote down.

One cycle, over and over, in one transaction on a thread of its own:

    1. record what became of the attempts that ended since the last cycle, all in one statement
    2. claim new attempts for the slots that are free, each with a lease, all in one statement
    3. COMMIT, then start an asyncio task per claimed attempt (handlers/delivery_client.py)

and then wait for what comes first: an attempt that ends, a row that notification wrote (LISTEN), the moment at which a
failed callback is due again, a stop, or the idle poll, which finds what other deliverers left behind. A few milliseconds
of waiting after the first of them put many outcomes into one cycle.

Slots are bounded overall and per FSP (per process), so an FSP that is slow or away holds its own slots and nobody else's.
An FSP whose last `failures_until_probing` attempts all failed is probed with one slot until an attempt succeeds: it may
have left 100,000 callbacks, and trying them all at full width would cost the others their share of the machine. What is
claimable, and the order per FSP and bulk, is the claim statement's business (db/deliveries.py).

When the process is killed, its attempts are made again when their leases run out: the same bytes, and the FSP may get them
twice (X-36). When the database is away, attempts under way end, their outcomes are kept and recorded when it is back (or
repeated, when that takes longer than the lease). A stop claims nothing more, gives what is under way `stop_timeout_ms`,
records, and leaves the rest to the leases. Deliverers may run in any number.
"""

import asyncio
import contextlib
import heapq
import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import psycopg
import uvloop
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.deliveries import (
    CHANNEL,
    ERROR_LENGTH_MAX,
    AttemptOutcome,
    Claim,
    ClaimedDelivery,
    claim_deliveries,
    record_outcomes,
)
from db.engine import connection_parameters
from domain.delivery import DeliveryState, FailedAttempt, GiveUp, RetryLimits, after_failure
from handlers.delivery_client import Answer, ClientLimits, DeliveryClient, ids_of_delivery
from handlers.metrics import DelivererMetrics
from handlers.tracing import Tracing
from object_store.interface import ObjectStore
from schemas.fspiop.signatures import Signer

log = logging.getLogger(__name__)

_DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)


@dataclass(frozen=True, slots=True)
class DelivererSettings:
    """`lease_ms` must outlast an attempt, else an attempt under way would be made a second time."""

    concurrency_max: int = 64
    concurrency_per_fsp_max: int = 8
    lease_ms: int = 15_000
    failures_until_probing: int = 16
    gather_ms: int = 4
    idle_poll_ms: int = 1_000
    database_retry_ms: int = 500
    # The longest pause after an attempt that the object store did not let us make: when it is back, callbacks go out.
    own_pause_max_ms: int = 30_000
    stop_timeout_ms: int = 10_000
    client: ClientLimits = field(default_factory=ClientLimits)
    retry: RetryLimits = field(default_factory=RetryLimits)
    # Signs what the hub says; None where the scheme has no signatures.
    signer: Signer | None = None
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        if self.lease_ms <= self.client.attempt_timeout_ms + self.gather_ms:
            raise ValueError("lease_ms must be longer than attempt_timeout_ms and gather_ms together")
        if not 0 < self.concurrency_per_fsp_max <= self.concurrency_max <= self.client.connections_max:
            raise ValueError("concurrency_per_fsp_max ≤ concurrency_max ≤ connections_max must hold")


class Deliverer:
    """Claims, sends and records until it is told to stop; lives on one event loop."""

    def __init__(self, engine: Engine, object_store: ObjectStore, settings: DelivererSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._client = DeliveryClient(object_store, settings.client, settings.signer, settings.tracing)
        self._database_thread = ThreadPoolExecutor(1, thread_name_prefix="deliverer-database")
        self._wake = asyncio.Event()
        self._stopping = False
        self._metrics = DelivererMetrics()
        self._in_flight: dict[asyncio.Task[None], ClaimedDelivery] = {}
        # Outcomes that the database has not confirmed yet; their slots stay taken until it has.
        self._ended: list[tuple[ClaimedDelivery, AttemptOutcome]] = []
        # Attempts that failed since the last success, per FSP.
        self._failures: Counter[str] = Counter()
        # When the callbacks that failed here are due again, on the monotonic clock; others are found by the idle poll.
        self._due: list[float] = []

    def stop(self) -> None:
        """Stop claiming and end; call it on the event loop."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `stop`; returns when nothing is under way any more, or its time is up."""
        listener = asyncio.create_task(self._listen())
        try:
            async with self._client:
                while not self._stopping:
                    if listener.done():
                        # It never returns: this raises what ended it, and the process ends with it.
                        listener.result()
                    await self._cycle()
                    await self._wait()
                await self._finish()
        finally:
            listener.cancel()
            await asyncio.gather(listener, *self._cancel_all(), return_exceptions=True)
            self._database_thread.shutdown(wait=True)

    async def _cycle(self) -> None:
        """Record, claim, start; when the database is away, keep everything and wait a little."""
        self._wake.clear()
        ended = list(self._ended)
        room = 0 if self._stopping else self._settings.concurrency_max - len(self._in_flight)
        if not ended and not room:
            return
        outcomes = [outcome for _, outcome in ended]
        work = asyncio.get_running_loop().run_in_executor(
            self._database_thread, self._transact, outcomes, self._slots_taken(), room
        )
        try:
            claim = await work
        except _DATABASE_AWAY as error:
            log.warning("the database does not answer, trying again: %s", str(error).partition("\n")[0])
            await asyncio.sleep(self._settings.database_retry_ms / 1000)
            self._wake.set()
            return
        del self._ended[: len(ended)]
        # The database counts the pause from the record. A look at the pause's end as counted from the failure, which on a
        # busy machine is earlier, would find nothing due, and leave the callback to the idle poll.
        recorded = time.monotonic()
        for outcome in outcomes:
            if outcome.delay_ms is not None:
                heapq.heappush(self._due, recorded + outcome.delay_ms / 1000)
        for delivery_id in claim.expired:
            log.warning(
                "delivery %d is dead: its bulk transfer expired before it was sent",
                delivery_id,
                extra={"delivery_id": delivery_id},
            )
        if claim.expired:
            self._metrics.expired(len(claim.expired))
            # What stood behind a callback that died is first of its bulk now.
            self._wake.set()
        for claimed in claim.deliveries:
            self._start(claimed)

    def _slots_taken(self) -> Counter[str]:
        """Per FSP what is under way, and all slots but one where it is only probed."""
        taken = Counter(claimed.fsp for claimed in self._in_flight.values())
        for fsp, failures in self._failures.items():
            if failures >= self._settings.failures_until_probing:
                taken[fsp] += self._settings.concurrency_per_fsp_max - 1
        return taken

    def _transact(self, outcomes: list[AttemptOutcome], in_flight: Counter[str], room: int) -> Claim:
        with self._engine.begin() as tx:
            if outcomes:
                record_outcomes(tx, outcomes)
            if not room:
                return Claim([], [])
            return claim_deliveries(
                tx,
                claims_max=room,
                per_fsp_max=self._settings.concurrency_per_fsp_max,
                in_flight=in_flight,
                lease_ms=self._settings.lease_ms,
            )

    async def _wait(self) -> None:
        """Until there is something to do, and then a moment longer, so that one cycle does more of it."""
        now = time.monotonic()
        while self._due and self._due[0] <= now:
            heapq.heappop(self._due)
            self._wake.set()
        until = min([now + self._settings.idle_poll_ms / 1000, *self._due[:1]])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - now):
                await self._wake.wait()
        await asyncio.sleep(self._settings.gather_ms / 1000)

    def _start(self, claimed: ClaimedDelivery) -> None:
        task = asyncio.create_task(self._attempt(claimed))
        self._in_flight[task] = claimed
        self._metrics.under_way(len(self._in_flight))
        task.add_done_callback(self._attempt_ended)

    async def _attempt(self, claimed: ClaimedDelivery) -> None:
        began = time.monotonic()
        answer = await self._client.attempt(claimed)
        if answer.delivered:
            self._failures.pop(claimed.fsp, None)
        elif not answer.is_ours:
            self._failures[claimed.fsp] += 1
        outcome = self._outcome(claimed, answer, elapsed_ms=int((time.monotonic() - began) * 1000))
        self._ended.append((claimed, outcome))
        self._metrics.attempted(claimed, outcome)

    def _attempt_ended(self, task: asyncio.Task[None]) -> None:
        claimed = self._in_flight.pop(task)
        self._metrics.under_way(len(self._in_flight))
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error(
                "delivery %d is left to its lease", claimed.delivery_id, exc_info=bug, extra=ids_of_delivery(claimed)
            )
        self._wake.set()

    def _outcome(self, claimed: ClaimedDelivery, answer: Answer, *, elapsed_ms: int) -> AttemptOutcome:
        state, delay_ms, error = DeliveryState.DELIVERED, None, answer.error
        if not answer.delivered:
            left_ms = None if claimed.left_ms is None else claimed.left_ms - elapsed_ms
            retry, attempts = self._settings.retry, claimed.attempts
            if answer.is_ours:
                # What is our fault uses up no attempt of the FSP's: the record takes it back. The pauses grow all the same,
                # with all the attempts that there ever were, and only the age ends them.
                retry, attempts = replace(retry, attempts_max=claimed.attempt + 1), claimed.attempt
            failed = FailedAttempt(attempts, claimed.age_ms + elapsed_ms, left_ms)
            decision = after_failure(retry, failed, random.random())  # noqa: S311  # jitter, no secret
            if isinstance(decision, GiveUp):
                state = DeliveryState.DEAD
                error = f"{decision.reason}; {error}" if error else decision.reason
                log.error(
                    "delivery %d to %s is dead: %s",
                    claimed.delivery_id,
                    claimed.fsp,
                    error,
                    extra=ids_of_delivery(claimed),
                )
            else:
                state, delay_ms = DeliveryState.WAITING, decision.delay_ms
                if answer.is_ours:
                    delay_ms = min(delay_ms, self._settings.own_pause_max_ms)
        return AttemptOutcome(
            delivery_id=claimed.delivery_id,
            attempt=claimed.attempt,
            url=answer.url,
            status=answer.status,
            error=None if error is None else error[:ERROR_LENGTH_MAX],
            duration_ms=answer.duration_ms,
            state=state,
            delay_ms=delay_ms,
            is_ours=answer.is_ours,
        )

    async def _finish(self) -> None:
        """Let what is under way end, and record it; both within the time that a stop may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout_ms / 1000):
                while self._in_flight or self._ended:
                    if self._in_flight and not self._ended:
                        await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
                        await asyncio.sleep(self._settings.gather_ms / 1000)
                    await self._cycle()
        left = len(self._in_flight) + len(self._ended)
        if left:
            log.warning("stopping with %d attempts open after %d ms", left, self._settings.stop_timeout_ms)

    def _cancel_all(self) -> list[asyncio.Task[None]]:
        tasks = list(self._in_flight)
        for task in tasks:
            task.cancel()
        return tasks

    async def _listen(self) -> None:
        """Wake up when notification has committed; a missed word costs no more than an idle poll."""
        parameters = connection_parameters(self._engine) | {"application_name": "deliverer-listen"}
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**parameters, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._wake.set()
                    async for _ in connection.notifies():
                        self._wake.set()
            except (psycopg.Error, OSError) as error:
                log.warning("cannot listen for new callbacks, trying again: %s", str(error).partition("\n")[0])
            await asyncio.sleep(self._settings.database_retry_ms / 1000)


def run_deliverer(
    engine: Engine,
    object_store: ObjectStore,
    settings: DelivererSettings,
    on_start: Callable[[], object] = lambda: None,
) -> None:
    """The process: deliver until SIGTERM or SIGINT; called on the main thread. From `on_start` on it hears them."""

    async def run() -> None:
        deliverer = Deliverer(engine, object_store, settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, deliverer.stop)
        on_start()
        await deliverer.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


class DelivererThread:
    """A deliverer beside other work of the same process: small machines, tests. Ends with the `with` block."""

    def __init__(self, engine: Engine, object_store: ObjectStore, settings: DelivererSettings) -> None:
        # The deliverer itself is made on its event loop.
        self._make: Callable[[], Deliverer] = lambda: Deliverer(engine, object_store, settings)
        self._thread = threading.Thread(target=self._run, name="deliverer")
        self._started = threading.Event()
        self._stop: Callable[[], object] | None = None
        self.error: BaseException | None = None

    def __enter__(self) -> "DelivererThread":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Stop gracefully and wait for the end."""
        if self._stop is not None:
            # A loop that is closed already has nothing left to stop.
            with contextlib.suppress(RuntimeError):
                self._stop()
        self._thread.join()

    def _run(self) -> None:
        async def run() -> None:
            deliverer = self._make()
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(deliverer.stop)
            self._started.set()
            await deliverer.run()

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:
            log.exception("the deliverer stopped")
            self.error = error
        finally:
            self._started.set()
