"""Cutting a batch into rounds in which no bulk stands twice, so that each round can be decided set by set.

A resend in the same batch as its original is rare; it costs one more round, and sees what the round before it wrote.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

MessageT = TypeVar("MessageT")


def rounds(messages: Iterable[MessageT], key: Callable[[MessageT], object]) -> Iterator[list[MessageT]]:
    """The messages in rounds; the first of each key in the first round, the second in the second, in order."""
    waiting = list(messages)
    while waiting:
        seen: set[object] = set()
        now: list[MessageT] = []
        later: list[MessageT] = []
        for message in waiting:
            (later if key(message) in seen else now).append(message)
            seen.add(key(message))
        yield now
        waiting = later
