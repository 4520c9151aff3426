"""Retry-After grows with the trouble, differs from sender to sender, and begins anew when the trouble is over."""

from hypothesis import given
from hypothesis import strategies as st

from bulk_api_adapter.fspiop.retry_after import RetryAfter


class Seconds:
    """A clock that stands still unless it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_longer_it_lasts_the_longer_senders_wait_up_to_the_limit() -> None:
    clock = Seconds()
    retry_after = RetryAfter(10, monotonic_s=clock)
    assert retry_after.refused("x") == 1
    seen: dict[float, set[int]] = {}
    for lasted in (4.0, 12.0, 16.0, 30.0):
        clock.now = 100 + lasted
        seen[lasted] = {retry_after.refused("x") for _ in range(200)}
        # Up to half as long again, never more than the limit, and half of it at least.
        longest = min(lasted / 2, 10)
        assert longest / 2 <= min(seen[lasted]) <= max(seen[lasted]) <= longest
    assert len(seen[30.0]) > 3


def test_who_gets_through_ends_it_and_so_does_silence() -> None:
    clock = Seconds()
    retry_after = RetryAfter(10, monotonic_s=clock)
    for second in range(20):
        clock.now = 100.0 + second
        retry_after.refused("x")
    assert retry_after.refused("x") > 1
    assert retry_after.refused("y") == 1
    retry_after.admitted("x")
    assert retry_after.refused("x") == 1
    clock.now += 20
    assert retry_after.refused("x") > 1
    clock.now += 21
    assert retry_after.refused("x") == 1


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from("abc"), st.booleans())), st.integers(1, 60))
def test_it_is_always_whole_seconds_within_the_limit(steps: list[tuple[float, str, bool]], limit: int) -> None:
    clock = Seconds()
    retry_after = RetryAfter(limit, monotonic_s=clock)
    for seconds, cause, refused in steps:
        clock.now += seconds
        if refused:
            assert retry_after.refused(cause) in range(1, limit + 1)
        else:
            retry_after.admitted(cause)
