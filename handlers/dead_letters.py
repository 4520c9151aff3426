"""How many bad messages are an accident, and how many are a bad deploy.

A handler that dead-letters everything it reads does harm faster than anybody can look. So there is a bound on bad messages
in a row, and on their share among the messages of late; past either the handler stops, and the rest stays on its topic.
"""

from collections import deque
from dataclasses import dataclass, field

from handlers.handler import Crash


@dataclass(frozen=True, slots=True)
class DeadLetterRules:
    """`ratio_max` is judged over the last `window_messages` messages, once that many were seen."""

    in_a_row_max: int = 100
    ratio_max: float = 0.1
    window_messages: int = 1_000


@dataclass(slots=True)
class DeadLetterLimit:
    """Counts what a loop has worked on since it started."""

    rules: DeadLetterRules
    _in_a_row: int = 0
    _window: deque[bool] = field(default_factory=deque)
    _bad_in_window: int = 0

    def note(self, *, good: int, bad: int) -> None:
        """Count a batch; raises Crash past a limit. Called before the commit, so that what stops us is not committed."""
        self._in_a_row = self._in_a_row + bad if good == 0 else bad
        window = self.rules.window_messages
        for is_bad, count in ((False, min(good, window)), (True, min(bad, window))):
            self._window.extend([is_bad] * count)
            self._bad_in_window += count if is_bad else 0
        while len(self._window) > window:
            self._bad_in_window -= self._window.popleft()
        if self._in_a_row > self.rules.in_a_row_max:
            raise Crash(f"{self._in_a_row} dead letters in a row: this looks like a bad deploy, not like bad messages")
        if len(self._window) == window and self._bad_in_window > self.rules.ratio_max * window:
            raise Crash(f"{self._bad_in_window} of the last {window} messages became dead letters: stopping")
