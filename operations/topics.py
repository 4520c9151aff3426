"""Topics as they should be, as they are, and what can be done about the difference.

What should be is the catalogue (schemas/topics.py) with the settings over it. Every topic: cleanup.policy=delete with the
catalogue's retention, no unclean leader election, max.message.bytes at which the largest batch of our clients still passes,
replication and min.insync.replicas of the settings. The table stream has partitions and retention, and nothing else.

Drift is found in this order, topic by topic: it is missing · partitions · retention · replication · min.insync.replicas ·
max.message.bytes (more than needed is no drift) · unclean leader election · cleanup policy; then topics under our names that
the catalogue does not know. `apply_topics` mends what loses nothing: it makes topics, adds partitions, sets settings. Fewer
partitions do not exist, other replicas are moved by an operator with Kafka's own tools, unknown topics are left alone. A
topic is never told to wait for more replicas than it has: nobody could write to it any more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from operations.settings import Settings
from schemas.topics import CATALOGUE
from stream.interface import Stream, TopicDescription
from stream.limits import KAFKA_MAX_MESSAGE_BYTES

# Every topic of ours begins so; on a cluster that is shared without a namespace others have other names.
_OURS = "topic-"

MAKE = "make it"
ADD_PARTITIONS = "add partitions"
SET = "set it"
_KEEP_PARTITIONS = "nothing: partitions are never taken away"
_MOVE_REPLICAS = "by hand: kafka-reassign-partitions.sh"
_AFTER_REPLICAS = "--apply again when the topic has its replicas"
_UNKNOWN = "by hand: look who uses it, then delete it"


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing about one topic that is not as it should be; `can_be_applied`: `apply_topics` does what `remedy` says."""

    topic: str
    what: str
    is_now: str
    should_be: str
    remedy: str
    can_be_applied: bool


def wanted_topics(settings: Settings) -> list[TopicDescription]:
    """The topics of the catalogue as the settings want them."""
    replication_factor = settings.kafka_replication_factor
    partitions = settings.partitions_by_topic
    return [
        TopicDescription(
            topic.name,
            partitions[topic.name],
            topic.retention_ms,
            replication_factor,
            settings.kafka_min_insync_replicas or max(1, replication_factor - 1),
            KAFKA_MAX_MESSAGE_BYTES,
            unclean_leader_election=False,
            cleanup_policy="delete",
        )
        for topic in CATALOGUE.values()
    ]


def find_drift(wanted: Sequence[TopicDescription], found: Mapping[str, TopicDescription]) -> list[Drift]:
    """What is not as it should be, in the order of the catalogue; unknown topics come last."""
    drift: list[Drift] = []
    for topic in wanted:
        if topic.name in found:
            drift += _differences(topic, found[topic.name])
        else:
            drift.append(Drift(topic.name, "topic", "missing", _partitions(topic.partitions), MAKE, True))
    known = {topic.name for topic in wanted}
    for name in sorted(found):
        if name.startswith(_OURS) and name not in known:
            partitions = _partitions(found[name].partitions)
            drift.append(Drift(name, "topic", partitions, "not in the catalogue", _UNKNOWN, False))
    return drift


def apply_topics(
    stream: Stream, wanted: Sequence[TopicDescription], found: Mapping[str, TopicDescription], drift: Sequence[Drift]
) -> None:
    """Mend what can be mended of the drift; raises StreamError, and what was mended before that stays so."""
    to_mend = {one.topic for one in drift if one.can_be_applied}
    stream.create_topics(topic for topic in wanted if topic.name in to_mend and topic.name not in found)
    for topic in wanted:
        if topic.name in to_mend and topic.name in found:
            stream.change_topic(_possible(topic, found[topic.name]))


def _possible(wanted: TopicDescription, found: TopicDescription) -> TopicDescription:
    """What is wanted, as far as the topic can take it and without taking anything from it."""
    return replace(
        wanted,
        partitions=max(wanted.partitions, found.partitions),
        min_insync_replicas=min(wanted.min_insync_replicas or 1, found.replication_factor or 1),
        max_message_bytes=max(wanted.max_message_bytes or 0, found.max_message_bytes or 0),
    )


def _partitions(number: int) -> str:
    return f"{number} partition{'' if number == 1 else 's'}"


def _differences(wanted: TopicDescription, found: TopicDescription) -> Iterator[Drift]:
    name = wanted.name
    if found.partitions != wanted.partitions:
        fewer = found.partitions < wanted.partitions
        remedy = ADD_PARTITIONS if fewer else _KEEP_PARTITIONS
        yield Drift(name, "partitions", str(found.partitions), str(wanted.partitions), remedy, fewer)
    if found.retention_ms != wanted.retention_ms:
        yield Drift(name, "retention.ms", str(found.retention_ms), str(wanted.retention_ms), SET, True)
    if found.replication_factor not in {None, wanted.replication_factor}:
        now, then = str(found.replication_factor), str(wanted.replication_factor)
        yield Drift(name, "replication factor", now, then, _MOVE_REPLICAS, False)
    if found.min_insync_replicas not in {None, wanted.min_insync_replicas}:
        now, then = str(found.min_insync_replicas), str(wanted.min_insync_replicas)
        possible = (wanted.min_insync_replicas or 1) <= (found.replication_factor or 1)
        yield Drift(name, "min.insync.replicas", now, then, SET if possible else _AFTER_REPLICAS, possible)
    if found.max_message_bytes is not None and found.max_message_bytes < (wanted.max_message_bytes or 0):
        now, then = str(found.max_message_bytes), str(wanted.max_message_bytes)
        yield Drift(name, "max.message.bytes", now, then, SET, True)
    for key, now_value, wanted_value in (
        ("unclean.leader.election.enable", found.unclean_leader_election, wanted.unclean_leader_election),
        ("cleanup.policy", found.cleanup_policy, wanted.cleanup_policy),
    ):
        if now_value not in {None, wanted_value}:
            yield Drift(name, key, str(now_value).lower(), str(wanted_value).lower(), SET, True)
