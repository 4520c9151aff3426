"""What the edge does about a part that is away: a few requests find out, the others are told at once.

A request that waits for a stream or a store that is away holds its body and its sender for `publish_wait_ms`, and learns
nothing that the request before it did not. So after `failures_until_probing` attempts in a row have failed, requests are
refused with 503/2003 before their bodies are read, and only one at a time, `probe_interval_ms` after the last failure, is
let through to see. The first success opens the way for all.

An attempt fails when the part says that it is unavailable, or when the time is over while it is being waited for. One that
had less than half of that time says nothing about this part: another one has used it up. A refusal for what a request is, a
topic that is not there and a bug say nothing either.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.retry_after import RetryAfter
from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal

logger = logging.getLogger(__name__)


class Circuit:
    """The way to one part, by the name that operators read; `unavailable` is what the part raises when it is away.

    Lives on one event loop.
    """

    def __init__(
        self,
        part: str,
        unavailable: type[Exception],
        limits: EdgeLimits,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part = part
        # As it is counted.
        self.name = part.replace(" ", "_")
        self._unavailable = unavailable
        self._failures_max = limits.failures_until_probing
        self._interval_s = limits.probe_interval_ms / 1000
        self._patience_s = limits.publish_wait_ms / 2_000
        self._retry_after = RetryAfter(limits.retry_after_s_max, monotonic_s=monotonic_s)
        self._monotonic_s = monotonic_s
        # In a row, up to now; and when the last of them ended.
        self._failures = 0
        self._failed_s = 0.0
        self._probe_is_under_way = False

    @property
    def is_probing(self) -> bool:
        """Whether so many attempts have failed that only one request at a time is let through."""
        return self._failures >= self._failures_max

    def require_way(self) -> None:
        """Raises Refusal when a request that began now could not be let through; takes no turn."""
        if self.is_probing and (self._probe_is_under_way or self._monotonic_s() - self._failed_s < self._interval_s):
            raise Refusal(
                ErrorCode.SERVICE_UNAVAILABLE,
                f"the {self._part} is away, send it again",
                retry_after_s=self._retry_after.refused(self._part),
                reason=self.name,
            )

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Try the part within the block; raises Refusal when it is not this request's turn."""
        self.require_way()
        is_probe = self.is_probing
        self._probe_is_under_way |= is_probe
        began_s = self._monotonic_s()
        try:
            yield
        except self._unavailable:
            self._failed()
            raise
        except asyncio.CancelledError:
            # The time that `asyncio.timeout` gives ends as a cancellation in here.
            if self._monotonic_s() - began_s >= self._patience_s:
                self._failed()
            raise
        else:
            self._succeeded()
        finally:
            if is_probe:
                self._probe_is_under_way = False

    def retry_after_s(self) -> int:
        """For a request that has just failed here."""
        return self._retry_after.refused(self._part)

    def _failed(self) -> None:
        self._failures += 1
        self._failed_s = self._monotonic_s()
        if self._failures == self._failures_max:
            logger.warning("%d attempts in a row have failed: the %s is probed", self._failures, self._part)

    def _succeeded(self) -> None:
        if self.is_probing:
            logger.warning("the %s answers again", self._part)
        self._failures = 0
        self._retry_after.admitted(self._part)
