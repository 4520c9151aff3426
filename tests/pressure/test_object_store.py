"""The object store is away, slow and back under load: the edge says so and holds nothing, and every bulk ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.services.seaweed import SeaweedService
from tests.pressure.conftest import StartPressed
from tests.pressure.pressed_world import Memory, require_refusals
from tests.pressure.proxy import Proxy

pytestmark = [pytest.mark.process, pytest.mark.services]
SLOW_MS = 30


@pytest.fixture
def seaweed(tmp_path: Path) -> Iterator[SeaweedService]:
    service = SeaweedService(tmp_path / "s3")
    try:
        service.start()
        yield service
    finally:
        service.stop()


def test_an_object_store_that_goes_away_and_comes_back_slow_loses_nothing(
    start_pressed: StartPressed, database_url: str, seaweed: SeaweedService
) -> None:
    address, _, rest = seaweed.url.removeprefix("s3://").partition("/")
    with Proxy(int(address.rpartition(":")[2])) as proxy:
        world = start_pressed(
            database_url=database_url,
            object_store_url=f"s3://127.0.0.1:{proxy.port}/{rest}",
            object_store_access_key=seaweed.access_key,
            object_store_secret_key=seaweed.secret_key,
        )
        world.flood(world.bulks(16), posts=1_000)
        # These are under way in every handler when the store goes.
        world.send_until_taken(world.bulks(8))
        with Memory(lambda: world.running.world.processes).watched() as memory:
            proxy.hold()
            answers = world.flood(bulks := world.bulks(24), posts=400)
            texts = require_refusals(answers)
            assert not any(one.status == 202 for one in answers)
            assert texts["the object store is away, send it again"] > len(answers) / 3, texts
            proxy.go_away()
            require_refusals(world.flood(bulks, posts=100))
            # Back, but every piece of every call comes later, each way.
            proxy.release()
            proxy.delay(SLOW_MS)
            world.send_until_taken(bulks[:2])
            proxy.release()
            world.send_until_taken(bulks)
            world.wait_until_ended()
        memory.require_flat()
