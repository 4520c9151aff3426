"""Whoever stops in good order leaves nothing behind, whoever comes shares the work, whoever comes back makes up for it."""

import random
import signal
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Engine, text

from handlers.host import HANDLER_NAMES
from operations.ports import free_ports
from tests.operations.processes import DEADLINE_S, wait_until
from tests.process.bulk_scripts import SCRIPT_OF
from tests.process.bulk_sets import BulkSet, pause, play_undisturbed
from tests.process.conftest import StartWorld
from tests.process.end_state import (
    expected_story,
    journals,
    require_consistent,
    stories,
    wait_for_empty_journals,
    wait_for_the_end,
)
from tests.process.running_world import is_healthy

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

# For a process to start on a busy machine, and for what it does then.
BACK_WITHIN_S = 60.0


def test_sigterm_in_mid_flight_is_a_graceful_end_that_loses_nothing(start_world: StartWorld) -> None:
    """The batch at hand is finished, its outputs are acknowledged and its journal cleared: nothing is replayed."""
    chance = random.Random(random.getrandbits(32))
    running = start_world(handler_groups=" ".join(HANDLER_NAMES))
    everybody = chance.sample([*HANDLER_NAMES, "api", "deliverer"], len(HANDLER_NAMES) + 2)
    for some in (everybody[:6], everybody[6:]):
        disturbed = BulkSet(running, chance, waves=len(some))
        for name in some:
            disturbed.post_wave()
            pause(chance, 0.3)
            with running.nobody_restarts():
                pid = running.kill(name, signal.SIGTERM)
                running.wait_until_gone(pid)
                with running.engine.connect() as tx:
                    assert name not in journals(tx)
            running.wait_for_restart(name, pid)
            running.wait_until_working(name)
        disturbed.require_expected_end()
    ended = [line.split(";")[0] for line in running.reports if "; starting it again" in line]
    assert sorted(ended) == sorted(f"{name} ended with status 0" for name in everybody)


def test_two_workers_of_each_handler_share_the_work_and_one_takes_it_all_over(start_world: StartWorld) -> None:
    """X-30, BULK-134: the second comes while bulks are under way, and is killed while others are."""
    chance = random.Random(random.getrandbits(32))
    running = start_world()
    play_undisturbed(running, chance)

    together = BulkSet(running, chance, waves=4)
    together.post_wave()
    [port] = free_ports(1)
    second = [
        running.start_extra("handler", *HANDLER_NAMES, "--health-port", str(port)),
        running.start_extra("deliver"),
    ]
    # Healthy means that each of its loops owns partitions; the clock has one only, and a second timeout handler is a spare.
    for url in (f"http://127.0.0.1:{port}/health", *running.world.health.values()):
        wait_until(partial(is_healthy, url), f"the readiness of {url}")
    for _ in range(3):
        together.post_wave()
        pause(chance, 0.3)
    together.require_expected_end()

    alone = BulkSet(running, chance, waves=2)
    alone.post_wave()
    pause(chance, 0.3)
    for process in second:
        process.kill()
        assert process.wait(DEADLINE_S) == -signal.SIGKILL
    alone.post_wave()
    alone.require_expected_end()
    wait_for_empty_journals(running)


def test_what_expired_while_the_timeout_handler_was_dead_ends_once_it_is_back(start_world: StartWorld) -> None:
    """D16, D18, BULK-127: no bulk is forgotten because nobody looked when its time ran out."""
    others = [name for name in HANDLER_NAMES if name != "timeout"]
    running = start_world(handler_groups=f"timeout {','.join(others)}")
    # Long enough for the payee to be told in time, however busy the machine is.
    script = replace(SCRIPT_OF["silent"], name="expired while nobody looked", expires_in_ms=15_000)
    with running.nobody_restarts():
        running.wait_until_gone(running.kill("timeout"))
        played = running.post(script).result(DEADLINE_S)
        id_ = played.bulk.bulk_transfer_id
        running.payee.wait_for(id_, timeout_s=DEADLINE_S)
        wait_until(lambda: _is_past_its_expiration(running.engine, id_), "the end of the bulk's time")
        assert running.payer.received(id_) == []
    [told] = running.payer.wait_for(id_, timeout_s=BACK_WITHIN_S)
    assert {one["errorInformation"]["errorCode"] for one in told.json()["individualTransferResults"]} == {"3303"}
    running.payee.wait_for(id_, count=2, timeout_s=BACK_WITHIN_S)
    wait_for_the_end(running, [played], [])
    # The whole of it, steps and transfers included: it had come as far as a bulk can.
    assert stories(running, [played]) == {script.name: expected_story(script)}
    require_consistent(running)


def _is_past_its_expiration(engine: Engine, bulk_transfer_id: str) -> bool:
    with engine.connect() as tx:
        query = text("SELECT now() > expiration FROM bulk_transfer WHERE bulk_transfer_id = :id")
        return bool(tx.execute(query, {"id": bulk_transfer_id}).scalar_one())
