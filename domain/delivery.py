"""The callback's own decisions: what kind it is, what an answer means, when it is tried again, when it is given up.

A callback is told once and repeated only when its answer was lost, bad, or not recorded within its lease (X-36). What
counts as an answer is any HTTP status from 200 to 299; everything else (another status, a redirect, silence, an address
that is missing) is a failed attempt. After a failed attempt, in this order:

    1. no attempts left        → given up
    2. the next one would come past the bound of the callback itself (a POST past the transfer's expiration) → given up
    3. the next one would come past the age that callbacks may reach → given up
    4. else it waits: exponential backoff with full jitter, so that callbacks that failed together do not come together

Given up means DEAD, with the reason in the last attempt; operators can send it again with a new budget. The attempts and
the age are counted from then on. Time and chance are facts here: the caller brings them.
"""

from dataclasses import dataclass
from enum import StrEnum

MILLISECONDS_PER_HOUR = 60 * 60 * 1000


class Resource(StrEnum):
    """What a callback is about; the FSPIOP resource that it is sent to."""

    BULK_TRANSFERS = "bulkTransfers"
    TRANSFERS = "transfers"


class Callback(StrEnum):
    """Which request tells the FSP: POST /{resource}, PUT /{resource}/{ID}, its /error, or PATCH /transfers/{ID}."""

    POST = "POST"
    PUT = "PUT"
    PUT_ERROR = "PUT_ERROR"
    PATCH = "PATCH"


class DeliveryKind(StrEnum):
    """What makes a callback the only one of its sort: one forward and final per entity and FSP, one answer per request."""

    FORWARD = "FORWARD"
    FINAL = "FINAL"
    ANSWER = "ANSWER"


class DeliveryState(StrEnum):
    """WAITING is tried until it becomes DELIVERED or DEAD; DEAD becomes WAITING when operators send it again."""

    WAITING = "WAITING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class ContradictoryNotification(ValueError):
    """The message asks for a callback that its combination does not make."""


def delivery_kind(
    *, is_forward: bool, callback: str, answers_request: bool, resource: Resource = Resource.BULK_TRANSFERS
) -> DeliveryKind:
    """The kind of a notification's delivery; `is_forward` says that its combination is the forward to the payee.

    Raises ContradictoryNotification.
    """
    if callback not in set(Callback):
        raise ContradictoryNotification(f"callback {callback} is none of {', '.join(Callback)}")
    if callback == Callback.PATCH and resource is not Resource.TRANSFERS:
        raise ContradictoryNotification(f"there is no PATCH of {resource}")
    if is_forward != (callback == Callback.POST):
        raise ContradictoryNotification("a forward is a POST, and nothing else is")
    if is_forward and answers_request:
        raise ContradictoryNotification("a forward answers no request of its receiver")
    if is_forward:
        return DeliveryKind.FORWARD
    return DeliveryKind.ANSWER if answers_request else DeliveryKind.FINAL


def is_delivered(http_status: int | None) -> bool:
    """Whether the FSP has said that it got the callback. A redirect is not followed, so it is no such answer."""
    return http_status is not None and 200 <= http_status <= 299


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long an FSP that does not answer is tried. With these an endpoint may be away for about eight hours."""

    backoff_first_ms: int = 500
    backoff_max_ms: int = 5 * 60 * 1000
    attempts_max: int = 200
    age_max_ms: int = 24 * MILLISECONDS_PER_HOUR

    def __post_init__(self) -> None:
        if not 0 < self.backoff_first_ms <= self.backoff_max_ms or self.attempts_max < 1 or self.age_max_ms < 0:
            raise ValueError("backoff_first_ms ≤ backoff_max_ms, attempts_max and age_max_ms must be positive")


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The facts after an attempt that failed.

    `attempts` and `age_ms` count from when the callback was written or last sent again; `left_ms` is the time until it
    may no longer be made, if there is such a bound (negative when that has passed).
    """

    attempts: int
    age_ms: int
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The callback waits this long."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The callback is dead; the reason is for operators."""

    reason: str


EXPIRED_REASON = "not sent: the transfer has expired"


def backoff_ms(limits: RetryLimits, attempts: int, jitter: float) -> int:
    """How long to wait after `attempts` failures; `jitter` is drawn evenly from 0 to 1."""
    # The exponent is bounded before it is used: 2 to the 10,000th is a number too, and a slow one.
    doublings = min(attempts - 1, limits.backoff_max_ms.bit_length())
    ceiling = min(limits.backoff_max_ms, limits.backoff_first_ms << doublings)
    return int(ceiling * jitter)


def after_failure(limits: RetryLimits, failed: FailedAttempt, jitter: float) -> TryAgain | GiveUp:
    """Whether a callback that failed is tried again, and when."""
    if failed.attempts >= limits.attempts_max:
        return GiveUp(f"gave up after {failed.attempts} attempts")
    delay_ms = backoff_ms(limits, failed.attempts, jitter)
    if failed.left_ms is not None and delay_ms >= failed.left_ms:
        return GiveUp("gave up: the transfer expires before the next attempt")
    if failed.age_ms + delay_ms > limits.age_max_ms:
        return GiveUp(f"gave up after {failed.age_ms / MILLISECONDS_PER_HOUR:.1f} hours")
    return TryAgain(delay_ms)
