"""What the tests of the streams append, and a process that reads it until it is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from stream.interface import NewRecord, Stream, TopicDescription, partition_of

TOPIC = "topic-bulk-prepare"
HOUR_MS = 3_600_000
ACKS_WAIT_MS = 20_000


def make_topic(stream: Stream, partitions: int, name: str = TOPIC) -> None:
    stream.create_topics([TopicDescription(name, partitions, HOUR_MS)])


def append(stream: Stream, records: list[NewRecord]) -> None:
    with closing(stream.producer()) as producer:
        producer.produce(records)
        producer.wait_for_acks(ACKS_WAIT_MS)


def numbered(keys: int, records: int, first: int = 0) -> list[NewRecord]:
    return [NewRecord(TOPIC, b"key-%d" % (n % keys), b"%d" % n) for n in range(first, first + records)]


def key_of(partition: int, partitions: int) -> bytes:
    """Some key whose records stand in the partition."""
    return next(key for key in (b"%d" % n for n in range(10_000)) if partition_of(key, partitions) == partition)


@contextmanager
def member_process(
    stream_url: str, database_url: str, session_timeout_ms: int = 6_000
) -> Iterator[subprocess.Popen[str]]:
    """Instance 1 of the group in a process of its own, killed at the end at the latest."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [
            *(sys.executable, Path(__file__).with_name("member.py")),
            *(stream_url, database_url, TOPIC, "1", str(session_timeout_ms)),
        ],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
