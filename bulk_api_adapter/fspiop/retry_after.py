"""When a sender that gets 503 should come again: Retry-After, in whole seconds.

What is known is for how long there has been trouble of this kind. A trouble that began a moment ago is asked about again
after a second, one that has lasted a minute is not over in the next second either: a sender is told up to half as long again
as it has lasted, never more than `retry_after_s_max`, and each another time, so that they do not all come back at once. A
request that gets through ends the trouble, and so does a time in which nobody was refused.
"""

import math
import random
import time
from collections.abc import Callable

# Past this number of causes the oldest are forgotten. There is one per payer at most, and some of the edge's own.
_CAUSES_MAX = 10_000


class RetryAfter:
    """Remembers per cause since when requests have been refused; lives on one event loop."""

    def __init__(self, retry_after_s_max: int, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._max_s = retry_after_s_max
        self._monotonic_s = monotonic_s
        # When the first and the last request of a run of refusals came.
        self._runs: dict[str, tuple[float, float]] = {}

    def refused(self, cause: str) -> int:
        """A request is refused for this cause; the seconds that its sender is told."""
        now = self._monotonic_s()
        first, last = self._runs.pop(cause, (now, now))
        if now - last > 2 * self._max_s:
            first = now
        # Written anew, so that the order of the dictionary is that of the last refusals.
        self._runs[cause] = (first, now)
        if len(self._runs) > _CAUSES_MAX:
            del self._runs[next(iter(self._runs))]
        longest = min(max(1.0, (now - first) / 2), self._max_s)
        return math.ceil(random.uniform(longest / 2, longest))  # noqa: S311 - jitter is no secret

    def admitted(self, cause: str) -> None:
        """A request got past this cause: whatever was the matter is over."""
        self._runs.pop(cause, None)
