"""PostgreSQL hangs under load: the edge says so and holds nothing, and everything goes on when it answers again."""

import pytest

from tests.pressure.conftest import StartPressed
from tests.pressure.pressed_world import Memory, require_refusals
from tests.pressure.proxy import Proxy

pytestmark = pytest.mark.process


def test_a_database_that_hangs_costs_refusals_and_nothing_else(
    start_pressed: StartPressed, database_proxy: Proxy, proxied_database_url: str
) -> None:
    world = start_pressed(database_url=proxied_database_url, in_flight_stale_ms="120000")
    world.flood(world.bulks(24), posts=1_000)
    world.wait_until_ended()

    with Memory(lambda: world.running.world.processes).watched() as memory:
        database_proxy.hold()
        # The topics are in that database, too: nothing can be taken in.
        answers = world.flood(bulks := world.bulks(32), posts=800)
        texts = require_refusals(answers)
        assert not any(one.status == 202 for one in answers)
        # A few found out, and the others were told before their bodies were read.
        assert texts["the stream is away, send it again"] > len(answers) / 3, texts
        database_proxy.release()
        world.send_until_taken(bulks)
        world.wait_until_ended()
    memory.require_flat()
