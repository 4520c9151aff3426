"""`bulk-switch topics` says what is not as it should be, and makes so what loses nothing."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import orjson
import pytest

from operations.settings import SettingsError, read_settings
from operations.topics import Drift, apply_topics, find_drift, wanted_topics
from schemas.topics import CATALOGUE, DAY_MS
from stream.interface import NewRecord, Stream, TopicDescription
from stream.kafka import KafkaStream
from stream.limits import KAFKA_MAX_MESSAGE_BYTES
from tests.operations.processes import run as run_command
from tests.stream.workload import append

Run = Callable[..., CompletedProcess[str]]

POSITION = "topic-transfer-position"
CLUSTER = {"kafka_replication_factor": 3, "topic_partitions": "12,topic-transfer-position=24"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_command, data_folder=tmp_path)


def of(topics: list[TopicDescription], name: str) -> TopicDescription:
    [found] = [topic for topic in topics if topic.name == name]
    return found


def test_what_is_wanted_is_the_catalogue_with_the_settings_over_it() -> None:
    wanted = wanted_topics(read_settings(**CLUSTER))
    assert [topic.name for topic in wanted] == list(CATALOGUE)
    expected = TopicDescription(POSITION, 24, 7 * DAY_MS, 3, 2, KAFKA_MAX_MESSAGE_BYTES, False, "delete")
    assert of(wanted, POSITION) == expected
    assert of(wanted, "topic-bulk-prepare").partitions == 12
    # Dead letters are for people: one partition, and kept for longer, unless they are named.
    dead_letters = of(wanted, f"{POSITION}-dead-letter")
    assert (dead_letters.partitions, dead_letters.retention_ms) == (1, 90 * DAY_MS)
    small = wanted_topics(read_settings())
    assert {topic.min_insync_replicas for topic in small} == {1}
    assert of(small, POSITION).partitions == CATALOGUE[POSITION].partitions


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"topic_partitions": "12,topic-no-such=3"}, "there is no topic topic-no-such"),
        ({"topic_partitions": "0"}, "0: partitions are a number from 1 to 10000"),
        ({"topic_partitions": "topic-bulk-get=many"}, "topic-bulk-get=many: partitions are a number"),
        ({"topic_partitions": "4,5"}, "says the number for every topic more than once"),
        ({"kafka_replication_factor": 2, "kafka_min_insync_replicas": 3}, "MIN_INSYNC_REPLICAS must not exceed"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings: dict[str, object], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        read_settings(**settings)


def test_every_kind_of_drift_is_found_and_only_what_loses_nothing_is_promised() -> None:
    wanted = wanted_topics(read_settings(**CLUSTER))
    found = {topic.name: topic for topic in wanted}
    assert find_drift(wanted, found) == []
    position = found[POSITION]
    for now, what, remedy, can_be_applied in (
        (replace(position, partitions=23), "partitions", "add partitions", True),
        (replace(position, partitions=25), "partitions", "nothing: partitions are never taken away", False),
        (replace(position, retention_ms=1), "retention.ms", "set it", True),
        (replace(position, replication_factor=2), "replication factor", "by hand: kafka-reassign-partitions", False),
        (replace(position, min_insync_replicas=1), "min.insync.replicas", "set it", True),
        (replace(position, max_message_bytes=1_000_000), "max.message.bytes", "set it", True),
        (replace(position, unclean_leader_election=True), "unclean.leader.election.enable", "set it", True),
        (replace(position, cleanup_policy="compact"), "cleanup.policy", "set it", True),
    ):
        [drift] = find_drift(wanted, found | {POSITION: now})
        assert (drift.topic, drift.what, drift.can_be_applied) == (POSITION, what, can_be_applied)
        assert drift.remedy.startswith(remedy)
    # What a table has not cannot differ, more room than needed harms nobody, and others' topics are theirs.
    larger = replace(position, max_message_bytes=2_000_000)
    bare = TopicDescription(POSITION, position.partitions, position.retention_ms)
    for harmless in (
        found | {POSITION: larger},
        found | {POSITION: bare},
        found | {"orders": replace(bare, name="orders")},
    ):
        assert find_drift(wanted, harmless) == []
    # With one replica, two that must agree would keep everyone from writing.
    alone = replace(position, replication_factor=1, min_insync_replicas=1)
    assert [one.can_be_applied for one in find_drift(wanted, found | {POSITION: alone})] == [False, False]


def test_missing_topics_are_made_and_others_extended_without_touching_what_they_hold(stream: Stream) -> None:
    wanted = wanted_topics(read_settings(topic_partitions="3"))
    smaller = [replace(topic, partitions=2) for topic in wanted if topic.name == POSITION]
    larger = [replace(topic, partitions=4) for topic in wanted if topic.name == "topic-bulk-get"]
    stream.create_topics([*smaller, *larger, replace(smaller[0], name="topic-of-an-older-release")])
    if isinstance(stream, KafkaStream):
        stream.change_topic(replace(smaller[0], max_message_bytes=2_000_000, unclean_leader_election=True))
    append(stream, [NewRecord(POSITION, b"key", b"value")] * 5)

    found = stream.topics()
    drift = find_drift(wanted, found)
    assert sum(one.is_now == "missing" for one in drift) == len(CATALOGUE) - 2
    apply_topics(stream, wanted, found, drift)
    left = find_drift(wanted, stream.topics())
    assert [(one.topic, one.what, one.is_now, one.should_be) for one in left] == [
        ("topic-bulk-get", "partitions", "4", "3"),
        ("topic-of-an-older-release", "topic", "2 partitions", "not in the catalogue"),
    ]
    assert not any(one.can_be_applied for one in left)
    position = stream.topics()[POSITION]
    assert position.partitions == 3
    assert sum(stream.end_offsets(POSITION).values()) == 5
    if isinstance(stream, KafkaStream):
        assert (position.max_message_bytes, position.unclean_leader_election) == (2_000_000, False)


def test_the_command_tells_applies_and_exits_with_one_while_anything_is_left(
    run: Run, database_url: str, stream_url: str
) -> None:
    world = {"BULK_SWITCH_DATABASE_URL": database_url, "BULK_SWITCH_STREAM_URL": stream_url}
    dry = run("topics", "--dry-run", "--json", **world)
    told = orjson.loads(dry.stdout)
    assert (dry.returncode, len(told["drift"]), told["topics"]) == (1, len(CATALOGUE), [])
    first = Drift("topic-bulk-prepare", "topic", "missing", "6 partitions", "make it", True)
    assert told["drift"] == told["left"]
    assert Drift(**told["drift"][0]) == first
    assert run("topics", "--apply", **world).returncode == 0
    assert run("topics", **world).stdout == "Every topic is as it should be.\n"

    more = {**world, "BULK_SWITCH_TOPIC_PARTITIONS": "topic-bulk-get=7,topic-transfer-get=2"}
    applied = run("topics", "--apply", **more)
    assert applied.returncode == 1
    assert "1 of 2 are left." in applied.stdout
    again = orjson.loads(run("topics", "--json", **more).stdout)
    assert [(one["topic"], one["is_now"], one["should_be"]) for one in again["left"]] == [
        ("topic-transfer-get", "6", "2")
    ]
    both = run("topics", "--apply", "--dry-run", **world)
    assert (both.returncode, both.stderr) == (1, "bulk-switch: --apply or --dry-run, not both\n")
