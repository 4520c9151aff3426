"""A pipeline whose topics are read twice: every message comes a second time, later, in the order of its key.

`Replays` keeps each topic's messages by key, as they were produced. Two readers go through every key in order, the second
one behind the first; a Random says whose turn it is, how much it reads and with which other keys in one batch. So a message
may come again at once, or when all is long over, and the repeats of one key come in their order, as after a rewind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from handlers.handler import Output
from tests.pipeline import Pipeline

Place = tuple[str, bytes]


@dataclass
class Replays(Pipeline):
    """`order` decides; `copies` of this class is always two."""

    order: Random = field(default_factory=Random)
    # Per topic and key all that was produced; and how far its two readers are.
    produced: dict[Place, list[Any]] = field(default_factory=dict)
    read: dict[Place, list[int]] = field(default_factory=dict)

    def send(self, outputs: Sequence[Output]) -> None:
        before = len(self.sent)
        super().send(outputs)
        for sent in self.sent[before:]:
            self._produce(sent.topic, sent.key, sent.message)
        for queue in self.queues.values():
            queue.clear()

    def take_requests(self) -> None:
        """What FSPs have sent is on its topics."""
        for topic, queue in self.queues.items():
            for message in queue:
                self._produce(topic, message.bulk_transfer_id, message)
            queue.clear()

    def read_all(self, *, twice: bool) -> None:
        """Read until the first readers, or both, have come to the end of every key."""
        self.take_requests()
        while waiting := self._waiting(twice=twice):
            topic = self.order.choice(sorted({place[0] for place, _ in waiting}))
            readers = [one for one in waiting if one[0][0] == topic]
            chosen = self.order.sample(readers, self.order.randint(1, len(readers)))
            batch = [message for place, reader in chosen for message in self._next(place, reader)]
            self.handle(topic, batch)

    def rewind(self) -> None:
        """Both readers begin again with the oldest message there is."""
        self.read = {place: [0, 0] for place in self.produced}

    def _waiting(self, *, twice: bool) -> list[tuple[Place, int]]:
        found = []
        for place, (first, second) in sorted(self.read.items()):
            if first < len(self.produced[place]):
                found.append((place, 0))
            if second < first and (twice or self.order.random() < 0.5):
                found.append((place, 1))
        # The second reader alone is no reason to go on, unless it has to come to the end too.
        return found if twice or any(reader == 0 for _, reader in found) else []

    def _next(self, place: Place, reader: int) -> list[Any]:
        start = self.read[place][reader]
        end = len(self.produced[place]) if reader == 0 else self.read[place][0]
        count = self.order.randint(1, max(end - start, 1))
        self.read[place][reader] = min(start + count, end)
        return self.produced[place][start : start + count][: end - start]

    def _produce(self, topic: str, key: bytes, message: Any) -> None:
        self.produced.setdefault((topic, key), []).append(message)
        self.read.setdefault((topic, key), [0, 0])
