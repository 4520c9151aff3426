"""When a callback counts as delivered, how long it waits, and when it is given up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.delivery import (
    ContradictoryNotification,
    DeliveryKind,
    FailedAttempt,
    GiveUp,
    RetryLimits,
    TryAgain,
    after_failure,
    backoff_ms,
    delivery_kind,
    is_delivered,
)

LIMITS = RetryLimits(backoff_first_ms=500, backoff_max_ms=60_000, attempts_max=10, age_max_ms=3_600_000)
JITTER = st.floats(0, 1)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_status_of_the_two_hundreds_delivers(status: int) -> None:
    assert is_delivered(status)


@pytest.mark.parametrize("status", [None, 100, 199, 300, 301, 302, 307, 308, 400, 404, 409, 429, 500, 503])
def test_no_answer_no_redirect_and_no_error_delivers(status: int | None) -> None:
    assert not is_delivered(status)


@given(attempts=st.integers(1, 100_000), jitter=JITTER)
def test_a_wait_lies_between_nothing_and_the_doubled_first_one_and_never_past_the_bound(
    attempts: int, jitter: float
) -> None:
    ceiling = min(60_000, 500 * 2 ** (min(attempts, 40) - 1))
    assert 0 <= backoff_ms(LIMITS, attempts, jitter) <= ceiling


def test_waits_double_until_the_bound() -> None:
    waits = [backoff_ms(LIMITS, attempts, 1.0) for attempts in range(1, 11)]
    assert waits == [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]


@given(st.data())
def test_jitter_spreads_evenly_over_the_whole_wait(data: st.DataObject) -> None:
    jitter = data.draw(JITTER)
    assert backoff_ms(LIMITS, 4, jitter) == int(4000 * jitter)


@given(attempts=st.integers(1, 9), age_ms=st.integers(0, 3_000_000), jitter=JITTER)
def test_a_young_callback_with_attempts_left_is_tried_again(attempts: int, age_ms: int, jitter: float) -> None:
    decision = after_failure(LIMITS, FailedAttempt(attempts, age_ms, None), jitter)
    assert decision == TryAgain(backoff_ms(LIMITS, attempts, jitter))


@given(attempts=st.integers(10, 1000), jitter=JITTER)
def test_the_last_attempt_is_the_last(attempts: int, jitter: float) -> None:
    assert after_failure(LIMITS, FailedAttempt(attempts, 0, None), jitter) == GiveUp(
        f"gave up after {attempts} attempts"
    )


@given(left_ms=st.integers(-10_000, 100_000), jitter=JITTER)
def test_a_forward_is_never_tried_again_past_the_expiration(left_ms: int, jitter: float) -> None:
    decision = after_failure(LIMITS, FailedAttempt(5, 0, left_ms), jitter)
    if isinstance(decision, TryAgain):
        assert decision.delay_ms < left_ms
    else:
        assert backoff_ms(LIMITS, 5, jitter) >= left_ms


def test_a_callback_that_would_grow_too_old_is_given_up() -> None:
    old = FailedAttempt(9, 3_599_000, None)
    assert after_failure(LIMITS, old, 0.01) == TryAgain(600)
    assert after_failure(LIMITS, old, 1.0) == GiveUp("gave up after 1.0 hours")


@pytest.mark.parametrize(
    ("is_forward", "callback", "answers_request", "kind"),
    [
        (True, "POST", False, DeliveryKind.FORWARD),
        (False, "PUT", False, DeliveryKind.FINAL),
        (False, "PUT_ERROR", False, DeliveryKind.FINAL),
        (False, "PUT", True, DeliveryKind.ANSWER),
        (False, "PUT_ERROR", True, DeliveryKind.ANSWER),
    ],
)
def test_a_callback_is_a_forward_a_final_or_an_answer(
    is_forward: bool,  # a table of cases
    callback: str,
    answers_request: bool,
    kind: DeliveryKind,
) -> None:
    assert delivery_kind(is_forward=is_forward, callback=callback, answers_request=answers_request) is kind


@pytest.mark.parametrize(
    ("is_forward", "callback", "answers_request"),
    [(True, "PUT", False), (False, "POST", False), (True, "POST", True), (False, "PATCH", False)],
)
def test_a_callback_that_does_not_fit_its_message_is_refused(
    is_forward: bool,
    callback: str,
    answers_request: bool,
) -> None:
    with pytest.raises(ContradictoryNotification):
        delivery_kind(is_forward=is_forward, callback=callback, answers_request=answers_request)


@pytest.mark.parametrize("wrong", [{"attempts_max": 0}, {"backoff_first_ms": 0}, {"backoff_max_ms": 1}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        RetryLimits(**wrong)
