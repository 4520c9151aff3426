"""An upgrade under load, to a release with a further schema version: readers first, then writers, and nothing is lost."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.combinations import TOPIC_TRANSFER_PREPARE
from operations.lag import read_dead_letters
from operations.simulated_bulk import timestamp
from schemas.codec import MARKER, frame_fingerprint, schema_versions
from schemas.messages import TransferPrepare
from tests.chaos.comparison import faults_of_reference
from tests.chaos.newer_release import newer_schema
from tests.chaos.parts import Parts
from tests.chaos.plan import FAR_MS, make_plan
from tests.chaos.processes import RELEASE, Described
from tests.chaos.run import Progress, play
from tests.chaos.world import ChaosWorld
from tests.operations.processes import ROOT, wait_until

pytestmark = [pytest.mark.process, pytest.mark.kafka, pytest.mark.services, pytest.mark.timeout(1_200)]

NEWER_RELEASE = "tests.chaos.newer_release"
VARIABLES = {"PYTHONPATH": str(ROOT)}
READER, WRITER = "prepare", "bulk-prepare"
OLD, NEW = (
    frame_fingerprint(schema)
    for schema in (schema_versions(TransferPrepare)[-1], newer_schema(schema_versions(TransferPrepare)[-1]))
)


def running(world: ChaosWorld, handler: str) -> list[str]:
    """The processes that run a handler."""
    return [name for name in world.processes.handlers if handler in world.processes.described[name].handlers]


def versions_on_the_topic(world: ChaosWorld) -> Counter[bytes]:
    """By fingerprint, how many records of topic-transfer-prepare were written with it."""
    found: Counter[bytes] = Counter()
    for partition, end in world.stream.end_offsets(TOPIC_TRANSFER_PREPARE).items():
        offset = 0
        while offset < end:
            records = world.stream.read(TOPIC_TRANSFER_PREPARE, partition, offset, 500)
            assert records, f"nothing at offset {offset} of partition {partition}, which ends at {end}"
            found.update(record.value[len(MARKER) : len(MARKER) + len(NEW)] for record in records)
            offset = records[-1].offset + 1
    return found


def test_old_and_new_processes_work_side_by_side_and_then_new_ones_alone(
    parts: Parts, tmp_path: Path, world_name: Callable[[str], str], random_seed: int
) -> None:
    """BULK-134: one worker after the other, while payments are under way; no step loses or doubles one."""
    plan = make_plan(random_seed, 1_500, 4, silent_expires_in_ms=40_000)
    with ChaosWorld(parts, tmp_path, world_name("upgrade"), workers=2, variables=VARIABLES) as world:
        readers, writers = running(world, READER), running(world, WRITER)
        assert (len(readers), len(writers)) == (2, 2)
        assert not set(readers) & set(writers)
        steps = [readers[:1], readers[1:], writers[:1], [*writers[1:], *world.processes.deliverers, "edge"], []]

        def upgrade(wave: int) -> None:
            for name in steps[wave]:
                world.processes.replace(name, NEWER_RELEASE)
            world.processes.wait_until_healthy(steps[wave])

        played = play(world, plan, timestamp(FAR_MS), Progress(), disturb=False, between=upgrade)
        versions = versions_on_the_topic(world)
    assert played.faults == []
    assert faults_of_reference(plan, played.books, played.resends) == []
    assert versions.keys() == {OLD, NEW}


def test_an_old_reader_stops_at_a_new_record_and_goes_on_when_it_is_upgraded(
    parts: Parts, tmp_path: Path, world_name: Callable[[str], str], random_seed: int
) -> None:
    """Writers before readers is a mistake of the deployment: it must cost time, and never a payment."""

    def release_of(one: Described) -> str:
        return NEWER_RELEASE if WRITER in one.handlers else RELEASE

    plan = make_plan(random_seed, 300, 0, silent_expires_in_ms=40_000)
    with ChaosWorld(
        parts, tmp_path, world_name("readers"), workers=1, variables=VARIABLES, release_of=release_of
    ) as world:
        [reader] = running(world, READER)

        def upgrade(_: int) -> None:
            message = f"no schema has the fingerprint {NEW.hex()}; a reader must be deployed before the writers"
            complaint = f"{reader} ended with status 1"
            wait_until(lambda: any(one.startswith(complaint) for one in world.processes.reports), "the reader's end")
            assert message in world.processes.log(reader)
            assert read_dead_letters(world.stream) == []
            world.processes.replace(reader, NEWER_RELEASE)

        played = play(world, plan, timestamp(FAR_MS), Progress(), disturb=False, between=upgrade)
        versions = versions_on_the_topic(world)
    assert played.faults == []
    assert faults_of_reference(plan, played.books, played.resends) == []
    assert versions.keys() == {NEW}
