"""A Kafka broker that hangs under load: the edge says so and holds nothing, and everything goes on when it answers again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.services.kafka import KafkaService
from tests.pressure.conftest import StartPressed
from tests.pressure.pressed_world import Memory, require_refusals

pytestmark = [pytest.mark.process, pytest.mark.kafka, pytest.mark.services]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaService]:
    service = KafkaService(tmp_path / "kafka")
    try:
        service.start()
        yield service
    finally:
        service.resume()
        service.stop()


def test_a_broker_that_hangs_costs_refusals_and_nothing_else(
    start_pressed: StartPressed, database_url: str, kafka: KafkaService
) -> None:
    world = start_pressed(kafka.url, database_url=database_url)
    world.flood(world.bulks(24), posts=1_000)
    world.wait_until_ended()

    processes = dict(world.running.world.processes)
    with Memory(lambda: world.running.world.processes).watched() as memory:
        kafka.pause()
        answers = world.flood(bulks := world.bulks(32), posts=800)
        texts = require_refusals(answers)
        assert not any(one.status == 202 for one in answers)
        assert texts["the stream is away, send it again"] > len(answers) / 3, texts
        kafka.resume()
        # Some that were answered 503 arrive now, and are sent again all the same: each bulk has one outcome.
        world.send_until_taken(bulks)
        world.wait_until_ended()
    memory.require_flat()
    assert world.running.world.processes == processes, "a process has ended and was started again"
