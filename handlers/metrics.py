"""What a process of handlers or deliverers counts about its work, for Prometheus.

    the loop      batches with their size and time, retries, bisects, fences, sessions that ended, dead letters, refusals
    the deliverer attempts with their outcome and time, callbacks that are dead, attempts under way

Everything is counted once per batch or per attempt, after its commit or its answer: a message costs no call here. Labels are
names that the switch itself gives (handlers, reasons, FSPIOP codes that it knows) or that operators gave (participants),
never what a sender typed, so nobody can make new series. Counters belong to the process and begin at nothing with it.

What a handler refuses is read from its outputs; a bulk that is refused as a whole says no code in any output, so the handler
notes it (`note_refused_bulk`) and the loop counts it with the commit. A batch that is rolled back counts nothing.
"""

import threading
from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Counted

from db.deliveries import AttemptOutcome, ClaimedDelivery
from domain.combinations import TOPIC_BULK_PROCESSING, TOPIC_SINGLE_NOTIFICATION
from domain.delivery import DeliveryState
from domain.fspiop_errors import ErrorCode
from handlers.handler import Output

# What handlers and deliverers count; the process adds what it says about itself.
REGISTRY = CollectorRegistry()

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
_BATCH_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# An attempt is cut off at 10 s by default.
_ATTEMPT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_batch_messages = Histogram(
    "bulk_switch_batch_messages", "Messages in a committed batch.", ["handler"], buckets=_SIZES, registry=REGISTRY
)
_batch_seconds = Histogram(
    "bulk_switch_batch_seconds",
    "From the first statement of a batch to its commit, the wait for acks included.",
    ["handler"],
    buckets=_BATCH_SECONDS,
    registry=REGISTRY,
)
_retries = Counted(
    "bulk_switch_batch_retries",
    "Batches that were rolled back to be tried again: slow_down, lost_race (a key), database (a lock or a conflict).",
    ["handler", "reason"],
    registry=REGISTRY,
)
_bisects = Counted(
    "bulk_switch_batch_bisects",
    "Batches that failed and were cut up to find the bad message.",
    ["handler"],
    registry=REGISTRY,
)
_fences = Counted(
    "bulk_switch_fences", "Batches rolled back because another owner had moved on.", ["handler"], registry=REGISTRY
)
_sessions_ended = Counted(
    "bulk_switch_sessions_ended",
    "Sessions of a loop that trouble with the stream or the database ended.",
    ["handler"],
    registry=REGISTRY,
)
_dead_letters = Counted(
    "bulk_switch_dead_letters_written", "Messages that became dead letters.", ["handler"], registry=REGISTRY
)
_refusals = Counted(
    "bulk_switch_refusals",
    "What handlers refused, by FSPIOP code: bulk (as a whole), item (of a bulk), single (transfers, as they were told).",
    ["handler", "kind", "code"],
    registry=REGISTRY,
)
_attempts = Counted(
    "bulk_switch_callback_attempts",
    "Attempts to deliver a callback: delivered, refused_4xx, refused_5xx, refused_other, no_answer.",
    ["fsp", "callback", "outcome"],
    registry=REGISTRY,
)
_attempt_seconds = Histogram(
    "bulk_switch_callback_attempt_seconds",
    "How long an attempt to deliver a callback took.",
    ["fsp"],
    buckets=_ATTEMPT_SECONDS,
    registry=REGISTRY,
)
_callbacks_dead = Counted(
    "bulk_switch_callbacks_dead",
    "Callbacks that were given up: attempts (or age) used up, or expired before they were sent.",
    ["reason"],
    registry=REGISTRY,
)
_attempts_under_way = Gauge(
    "bulk_switch_callback_attempts_under_way", "Attempts that this process makes now.", registry=REGISTRY
)

_KINDS = {TOPIC_BULK_PROCESSING: "item", TOPIC_SINGLE_NOTIFICATION: "single"}
_KNOWN_CODES = frozenset(code.code for code in ErrorCode)
_pending = threading.local()
# More than a batch can hold; where no loop counts them (a handler that is called by hand) no more are kept.
_PENDING_MAX = 10_000


def note_refused_bulk(code: str) -> None:
    """A bulk is refused as a whole by the batch of this thread; counted when the batch is committed."""
    codes = _pending_codes()
    if len(codes) < _PENDING_MAX:
        codes.append(code)


def _pending_codes() -> list[str]:
    try:
        codes: list[str] = _pending.codes
    except AttributeError:
        codes = _pending.codes = []
    return codes


class LoopMetrics:
    """The series of one handler, made once per loop so that they stand at nothing from its start."""

    def __init__(self, handler: str) -> None:
        self._handler = handler
        self._messages = _batch_messages.labels(handler)
        self._seconds = _batch_seconds.labels(handler)
        self._dead_letters = _dead_letters.labels(handler)
        self._retries = {reason: _retries.labels(handler, reason) for reason in ("slow_down", "lost_race", "database")}
        self._bisects = _bisects.labels(handler)
        self._fences = _fences.labels(handler)
        self._sessions_ended = _sessions_ended.labels(handler)

    def begin(self) -> None:
        """A batch, or another attempt at it, begins: what an attempt before it noted is forgotten."""
        _pending_codes().clear()

    def committed(self, messages: int, seconds: float, bad: int, outputs: Iterable[Output]) -> None:
        self._messages.observe(messages)
        self._seconds.observe(seconds)
        if bad:
            self._dead_letters.inc(bad)
        refused = Counter(("bulk", code) for code in _pending_codes())
        refused.update(
            (_KINDS[output.topic], output.message.error_code)  # type: ignore[union-attr]  # both messages have it
            for output in outputs
            if output.topic in _KINDS and output.message.error_code is not None  # type: ignore[union-attr]
        )
        _pending_codes().clear()
        for (kind, code), count in refused.items():
            _refusals.labels(self._handler, kind, code if code in _KNOWN_CODES else "other").inc(count)

    def retried(self, reason: str) -> None:
        self._retries[reason].inc()

    def bisected(self) -> None:
        self._bisects.inc()

    def fenced(self) -> None:
        self._fences.inc()

    def session_ended(self) -> None:
        self._sessions_ended.inc()


class DelivererMetrics:
    """What the deliverer counts."""

    def __init__(self) -> None:
        self._dead = {reason: _callbacks_dead.labels(reason) for reason in ("given_up", "expired")}

    def under_way(self, attempts: int) -> None:
        _attempts_under_way.set(attempts)

    def attempted(self, claimed: ClaimedDelivery, outcome: AttemptOutcome) -> None:
        _attempts.labels(claimed.fsp, claimed.callback, _attempt_outcome(outcome)).inc()
        _attempt_seconds.labels(claimed.fsp).observe(outcome.duration_ms / 1000)
        if outcome.state == DeliveryState.DEAD:
            self._dead["given_up"].inc()

    def expired(self, callbacks: int) -> None:
        """Callbacks that died in the claim, unsent."""
        self._dead["expired"].inc(callbacks)


def _attempt_outcome(outcome: AttemptOutcome) -> str:
    if outcome.state == DeliveryState.DELIVERED:
        return "delivered"
    if outcome.status is None:
        return "no_answer"
    return {4: "refused_4xx", 5: "refused_5xx"}.get(outcome.status // 100, "refused_other")
