"""Topics: how many partitions they have, and how many brokers must hold a record before it counts."""

from pydantic import BaseModel, Field, field_validator

from operations.settings.types import Count, Milliseconds
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX

# More than any cluster is well with for one topic; a typing error must not make a million.
_PARTITIONS_MAX = 10_000


class TopicSettings(BaseModel):
    """What `bulk-switch topics` makes of the catalogue (schemas/topics.py)."""

    # A partition is read by one process at a time, so there are at least as many as the processes that shall share a
    # handler's work. The catalogue's own number is for small clusters.
    topic_partitions: str = Field(
        "", description="for every topic of work, or by name, or both: 24 or 12,topic-transfer-position=24"
    )
    # Acknowledged by so many brokers, a record outlives all but one of them. Empty: one less than kafka_replication_factor.
    kafka_min_insync_replicas: Count | None = None
    # For so long a process goes by the number of partitions that it has read; only then it writes to those that were added.
    # Readers find them within 5 s.
    partitions_kept_ms: Milliseconds = 60_000

    @field_validator("topic_partitions")
    @classmethod
    def _known_topics(cls, value: str) -> str:
        _partitions_by_topic(value)
        return value

    @property
    def partitions_by_topic(self) -> dict[str, int]:
        """The number of partitions of each topic of the catalogue."""
        wanted = _partitions_by_topic(self.topic_partitions)
        for_work = wanted.get("")
        return {
            name: wanted.get(name)
            or (for_work if for_work and not name.endswith(DEAD_LETTER_SUFFIX) else topic.partitions)
            for name, topic in CATALOGUE.items()
        }


def _partitions_by_topic(text: str) -> dict[str, int]:
    """By topic; under the empty name what holds for every topic of work. Raises ValueError."""
    found: dict[str, int] = {}
    for part in text.replace(",", " ").split():
        name, _, number = part.rpartition("=")
        if name and name not in CATALOGUE:
            raise ValueError(f"there is no topic {name}")
        if name in found:
            raise ValueError(f"says {name or 'the number for every topic'} more than once")
        if not number.isdecimal() or not 1 <= int(number) <= _PARTITIONS_MAX:
            raise ValueError(f"{part}: partitions are a number from 1 to {_PARTITIONS_MAX}")
        found[name] = int(number)
    return found
