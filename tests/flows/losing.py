"""A pipeline whose topics can be lost: what waits on them is gone, and redrive fills them again.

`Losing` runs a random handler on a random part of what waits for it, one step at a time, so that a test can stop anywhere.
What redrive publishes goes into the same queues, decoded from the very records that a stream would have been given.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import text

from operations.redrive import RedriveReport, RedriveScope, run_redrive
from schemas.codec import codec
from schemas.topics import CATALOGUE
from stream.interface import NewRecord, Stream
from tests.pipeline import Pipeline


@dataclass
class Losing(Pipeline):
    """`order` decides whose turn it is and how much is read."""

    order: Random = field(default_factory=Random)

    def some_steps(self, steps_max: int) -> None:
        """A random number of batches of random topics, as far as there are any."""
        for _ in range(self.order.randint(0, steps_max)):
            waiting = [topic for topic, queue in self.queues.items() if queue and topic not in self.held]
            if not waiting:
                return
            topic = self.order.choice(sorted(waiting))
            self.step(topic, self.order.randint(1, len(self.queues[topic])))

    def lose(self) -> int:
        """All topics are deleted and made again; how many messages were lost with them."""
        lost = sum(len(queue) for queue in self.queues.values())
        for queue in self.queues.values():
            queue.clear()
        return lost

    def redrive(
        self, *, ids: Sequence[bytes] = (), from_objects: bool = False, is_dry_run: bool = False
    ) -> RedriveReport:
        return run_redrive(
            self.engine,
            self.store,
            cast(Stream, SimpleNamespace(producer=lambda: _Queues(self))),
            self.bulk_rules,
            RedriveScope(ids, 0 if from_objects else None),
            items_per_bulk_max=1_000,
            actor="test",
            is_dry_run=is_dry_run,
        )

    def redrive_and_run(self) -> None:
        """The whole procedure after a loss: an answer waits until what it answers has been worked on."""
        while True:
            report = self.redrive(from_objects=True)
            self.run()
            if not any(kind.later for kind in report.requests):
                return

    def notifications(self, to: str) -> list[Any]:
        """Who has been sent a callback knows of it, and nobody else: what waits on a topic may be lost."""
        query = text(
            "SELECT uuid_send(entity_id) AS bulk_transfer_id, callback, content FROM delivery"
            " WHERE resource = 'bulkTransfers' AND fsp = :fsp ORDER BY delivery_id"
        )
        with self.engine.connect() as tx:
            return list(tx.execute(query, {"fsp": to}).all())


class _Queues:
    """A producer that appends to the queues of a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def produce(self, records: Iterable[NewRecord]) -> None:
        carried = list(records)
        if self._pipeline.transport is not None:
            carried = self._pipeline.transport.carry(carried)
        for record in carried:
            decoded = codec(CATALOGUE[record.topic].message).decode(record.value)
            self._pipeline.queues[record.topic].extend(decoded)

    def wait_for_acks(self, timeout_ms: int) -> None:
        """What stands in a queue is kept."""

    def close(self) -> None:
        """Nothing is open."""
