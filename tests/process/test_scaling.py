"""Processes that come and go under load, and partitions that are added to it, lose nothing and double nothing."""

import random
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial

import httpx
import pytest
from sqlalchemy import text

from operations.lag import PartitionLag, read_lag
from operations.ports import free_ports
from stream.opening import open_stream
from tests.operations.processes import DEADLINE_S, run, wait_until
from tests.process.bulk_sets import BulkSet, pause, play_undisturbed
from tests.process.conftest import StartWorld
from tests.process.end_state import wait_for_empty_journals
from tests.process.running_world import RunningWorld, is_healthy

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

# Those of a bulk's and a single transfer's way on which every item is worked on.
SCALED = ("prepare", "position", "fulfil", "bulk-processing", "single-position")
GROWING = (
    "topic-transfer-prepare",
    "topic-transfer-position",
    "topic-bulk-processing",
    "topic-single-transfer-position",
)
# The world's own process that has the position handler (handler_groups).
WITH_POSITION = "handlers-3"


class Extra:
    """A further process of one handler, as `--scale` starts it: without a number of its own."""

    def __init__(self, running: RunningWorld, handler: str) -> None:
        [port] = free_ports(1)
        self.health = f"http://127.0.0.1:{port}/health"
        self.process: subprocess.Popen[str] = running.start_extra("handler", handler, "--health-port", str(port))

    def wait_until_ready(self) -> None:
        wait_until(partial(is_healthy, self.health), f"the readiness of {self.health}")

    def spares(self) -> Sequence[str]:
        return spares_of(self.health)

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE_S)
        assert status == (0 if number == signal.SIGTERM else -number)


def spares_of(health: str) -> Sequence[str]:
    """The handlers of a process that wait for a partition; a process without handlers has none."""
    spares: Sequence[str] = httpx.get(health).json()["spares"]
    return spares


def instances(running: RunningWorld) -> Mapping[str, set[int]]:
    """The instance numbers that read something now, by handler."""
    found: dict[str, set[int]] = {}
    for row in lag_of(running):
        if row.owner is not None:
            found.setdefault(row.handler, set()).add(row.owner)
    return found


def lag_of(running: RunningWorld) -> list[PartitionLag]:
    stream = open_stream(running.world.stream_url, running.engine)
    try:
        with running.engine.connect() as tx:
            return read_lag(tx, stream)
    finally:
        stream.close()


def test_handlers_are_scaled_up_and_down_under_load(start_world: StartWorld) -> None:
    """BULK-134, X-30, X-36: two more of each, then one ends in good order and one by kill -9, and again."""
    chance = random.Random(random.getrandbits(32))
    running = start_world(topic_partitions="4")
    play_undisturbed(running, chance)

    load = BulkSet(running, chance, waves=8)
    load.post_wave()
    extras = {name: [Extra(running, name), Extra(running, name)] for name in SCALED}
    for _ in range(2):
        load.post_wave()
        pause(chance, 0.3)
    for name in SCALED:
        for extra in extras[name]:
            extra.wait_until_ready()
    wait_until(lambda: all(instances(running)[name] == {0, 1, 2} for name in SCALED), "a share of work for everybody")
    load.post_wave()

    for name in chance.sample(SCALED, len(SCALED)):
        gone, killed = chance.sample(extras[name], 2)
        gone.end(signal.SIGTERM)
        pause(chance, 0.2)
        killed.end(signal.SIGKILL)
        extras[name] = []
    load.post_wave()
    # Up again before the others have taken over what was left behind.
    again = [Extra(running, name) for name in chance.sample(SCALED, 2)]
    for _ in range(3):
        load.post_wave()
        pause(chance, 0.3)
    load.require_expected_end()
    for extra in again:
        extra.wait_until_ready()
        extra.end(signal.SIGTERM)
    wait_for_empty_journals(running)


def test_more_processes_than_partitions_are_spares_until_they_are_needed(start_world: StartWorld) -> None:
    """D28: whoever owns nothing says that it is ready, and why; it takes over when one of the others is killed."""
    chance = random.Random(random.getrandbits(32))
    running = start_world(topic_partitions="topic-transfer-position=2")
    extras = [Extra(running, "position"), Extra(running, "position")]
    for extra in extras:
        extra.wait_until_ready()
    wait_until(lambda: len(instances(running)["position"]) == 2, "two owners")
    # Of three processes one waits; it may be the world's own. Whoever was made an owner hears of it a moment later.
    three = [running.world.health[WITH_POSITION], *(extra.health for extra in extras)]
    wait_until(lambda: [name for health in three for name in spares_of(health)] == ["position"], "one of three waits")
    load = BulkSet(running, chance, waves=2)
    load.post_wave()
    pause(chance, 0.3)
    victim = chance.choice(extras)
    victim.end(signal.SIGKILL)
    load.post_wave()
    load.require_expected_end()
    [left] = [extra for extra in extras if extra is not victim]
    # Nobody is spare any more, and on Kafka the dead one's partition is taken over when its session has run out.
    wait_until(lambda: is_healthy(left.health) and not left.spares(), "work for everybody who is left")
    wait_for_empty_journals(running)


def test_partitions_are_added_to_live_topics_under_load(start_world: StartWorld) -> None:
    """BULK-134: from four to eight, while bulks and single transfers of every outcome are under way, and one is killed."""
    chance = random.Random(random.getrandbits(32))
    running = start_world(topic_partitions="4", partitions_kept_ms="500")
    play_undisturbed(running, chance)
    load = BulkSet(running, chance, waves=6)
    for _ in range(2):
        load.post_wave()
        pause(chance, 0.3)
    more = ",".join(["4", *(f"{topic}=8" for topic in GROWING)])
    world = {
        "BULK_SWITCH_DATABASE_URL": running.world.database_url,
        "BULK_SWITCH_STREAM_URL": running.world.stream_url,
        "BULK_SWITCH_TOPIC_PARTITIONS": more,
    }
    applied = run("topics", "--apply", data_folder=running.data_folder, **world)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    # Whoever leads its group dies before it may have noticed, and comes back within its session.
    killed = running.kill(WITH_POSITION)
    for _ in range(3):
        load.post_wave()
        pause(chance, 1.0)
    running.wait_for_restart(WITH_POSITION, killed)
    wait_until(lambda: _new_partitions(running, with_owner=True), "owners for the new partitions")
    load.post_wave()
    load.require_expected_end()

    again = BulkSet(running, chance)
    again.post_wave()
    again.require_expected_end()
    # They are not only there: messages went through them, and all of them were read.
    assert _new_partitions(running, with_owner=True)
    used = [row for row in lag_of(running) if row.topic in GROWING and row.partition >= 4 and row.end_offset]
    assert {row.topic for row in used} >= {"topic-transfer-prepare", "topic-bulk-processing"}
    with running.engine.connect() as tx:
        owed = text("SELECT count(*) FROM open_expiration")
        assert tx.execute(owed).scalar_one() == 0
    wait_for_empty_journals(running)


def _new_partitions(running: RunningWorld, *, with_owner: bool) -> bool:
    rows = [row for row in lag_of(running) if row.topic in GROWING and row.partition >= 4]
    return len(rows) == 4 * len(GROWING) and all((row.owner is not None) == with_owner for row in rows)
