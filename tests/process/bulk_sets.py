"""A bulk and a single transfer of every script, posted in waves while a test does its worst, and judged by the scripts."""

import contextlib
import random
from concurrent.futures import Future

from sqlalchemy import text

from tests.bulks import world
from tests.operations.processes import DEADLINE_S
from tests.process.bulk_scripts import SCRIPTS, Script
from tests.process.end_state import (
    expected_changes,
    expected_story,
    position_changes,
    require_consistent,
    require_told,
    stories,
    wait_for_the_end,
)
from tests.process.running_world import Played, RunningWorld
from tests.process.single_scripts import SINGLE_SCRIPTS, PlayedSingle, SingleScript

EXPECTED = {script.name: expected_story(script) for script in SCRIPTS}


class BulkSet:
    """Nothing else may move money, or end, between its making and `require_expected_end`."""

    def __init__(self, running: RunningWorld, chance: random.Random, waves: int = 1) -> None:
        self._running = running
        self._before = world(running.engine).positions
        # The one whose time runs out goes first, because the others need not wait for it then.
        silent, *others = sorted(SCRIPTS, key=lambda script: (script.name != "silent", chance.random()))
        order = [silent, *others]
        self._waves: list[list[Script]] = [order[number::waves] for number in range(waves)]
        self._posted: list[Future[Played]] = []
        silent_single, *other_singles = sorted(
            SINGLE_SCRIPTS, key=lambda script: (script.name != "silent", chance.random())
        )
        singles = [silent_single, *other_singles]
        self._single_waves: list[list[SingleScript]] = [singles[number::waves] for number in range(waves)]
        self._posted_singles: list[Future[PlayedSingle]] = []

    def post_wave(self) -> None:
        """Post the next bulks and single transfers, in the background."""
        self._posted_singles += [self._running.post_single(script) for script in self._single_waves.pop(0)]
        self._posted += [self._running.post(script) for script in self._waves.pop(0)]

    def require_expected_end(self) -> dict[str, Played]:
        """Wait for the end, and compare everything with what the scripts promise; returns the bulks by script."""
        assert not self._waves
        played = [one.result(DEADLINE_S) for one in self._posted]
        singles = [one.result(DEADLINE_S) for one in self._posted_singles]
        wait_for_the_end(self._running, played, singles)
        assert stories(self._running, played) == EXPECTED
        for single in singles:
            require_told(self._running, single)
        changes = position_changes(self._running.engine, self._before)
        assert changes == expected_changes((one.script for one in played), (one.script for one in singles))
        require_consistent(self._running)
        return {one.script.name: one for one in played}


def play_undisturbed(running: RunningWorld, chance: random.Random) -> dict[str, Played]:
    """A set that nothing happens to: it shows that the scripts promise what the switch does anyway."""
    undisturbed = BulkSet(running, chance)
    undisturbed.post_wave()
    return undisturbed.require_expected_end()


def require_answers(running: RunningWorld, asked_for: Played, gets: list["Future[int]"]) -> None:
    """Each GET of a bulk that had ended was answered, with the outcome that its payer had been told."""
    attempts = [get.result(DEADLINE_S) for get in gets]
    with running.engine.connect() as tx:
        answers = tx.execute(
            text("SELECT count(*) FROM delivery WHERE kind = 'ANSWER' AND state = 'DELIVERED' AND entity_id = :id"),
            {"id": asked_for.bulk.bulk_transfer_id},
        ).scalar_one()
    # A GET that broke off may have been taken all the same.
    assert len(attempts) <= answers <= sum(attempts)
    received = running.payer.received(asked_for.bulk.bulk_transfer_id)
    assert len(received) > answers
    assert {one.body for one in received} == {received[0].body}


def pause(chance: random.Random, seconds_max: float) -> None:
    """Let a random time pass while the messages flow on: there is nothing to wait for."""
    with contextlib.suppress(TimeoutError):
        Future[None]().result(chance.uniform(0, seconds_max))
