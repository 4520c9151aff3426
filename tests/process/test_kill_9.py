"""Whoever is killed, and how often: every bulk ends as it would have ended anyway, and each side is told once."""

import random

import pytest

from handlers.host import HANDLER_NAMES
from tests.process.bulk_sets import BulkSet, pause, play_undisturbed, require_answers
from tests.process.conftest import StartWorld
from tests.process.end_state import wait_for_empty_journals

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

KILLS = 2


def test_kill_9_of_any_process_at_any_moment_changes_nothing(start_world: StartWorld) -> None:
    """BULK-134, D2, D3, D10, D17, X-30, X-36: handler after handler, then the edge and the deliverer, twice each."""
    chance = random.Random(random.getrandbits(32))
    running = start_world(handler_groups=" ".join(HANDLER_NAMES))
    ended = play_undisturbed(running, chance)["mixed"]
    gets = []
    for victim in chance.sample([*HANDLER_NAMES, "api", "deliverer"], len(HANDLER_NAMES) + 2):
        disturbed = BulkSet(running, chance, waves=KILLS + 1)
        for _ in range(KILLS):
            disturbed.post_wave()
            gets.append(running.get(ended.bulk.bulk_transfer_id))
            if victim in HANDLER_NAMES and chance.random() < 0.7:
                killed = running.kill_after_its_next_commit(victim, wait_s=1.5)
            else:
                pause(chance, 0.3)
                killed = running.kill(victim)
            running.wait_for_restart(victim, killed)
            if chance.random() < 0.7:
                running.wait_until_working(victim)
            else:
                # Perhaps while it is taking over what the one before it has left.
                pause(chance, 1.5)
        disturbed.post_wave()
        disturbed.require_expected_end()
        assert sum(line.startswith(f"{victim} was killed by signal 9") for line in running.reports) == KILLS
    require_answers(running, ended, gets)
    wait_for_empty_journals(running)


def test_kill_9_of_everything_and_up_again_goes_on_where_it_was(start_world: StartWorld) -> None:
    """BULK-134, D2, D10: the supervisor, its processes and PostgreSQL, twice; Kafka itself and both FSPs stay."""
    chance = random.Random(random.getrandbits(32))
    running = start_world()
    play_undisturbed(running, chance)
    disturbed = BulkSet(running, chance, waves=5)
    for _ in range(2):
        disturbed.post_wave()
        pause(chance, 0.4)
        running.kill_everything()
        # Payers go on trying to reach a switch that is not there.
        disturbed.post_wave()
        running.up()
    disturbed.post_wave()
    disturbed.require_expected_end()
    wait_for_empty_journals(running)


def test_kill_9_of_postgresql_alone_is_survived_by_everybody_else(start_world: StartWorld) -> None:
    """BULK-134: the supervisor starts it again, and whoever had connections makes new ones; no process ends with it."""
    chance = random.Random(random.getrandbits(32))
    running = start_world()
    before = running.world.processes
    disturbed = BulkSet(running, chance, waves=4)
    for _ in range(2):
        disturbed.post_wave()
        pause(chance, 0.4)
        running.kill_postgres()
        disturbed.post_wave()
        running.wait_for_postgres()
    disturbed.require_expected_end()
    assert running.world.processes == before
    wait_for_empty_journals(running)
