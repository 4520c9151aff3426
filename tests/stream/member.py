"""A process that is a member of the group "handler" until it is killed.

    python member.py STREAM_URL DATABASE_URL TOPIC INSTANCE SESSION_TIMEOUT_MS

It prints a line with the numbers of the partitions that it owns, separated by commas, whenever they change.
"""

import sys
from collections.abc import Mapping

from db.engine import make_engine
from stream.interface import Partition
from stream.opening import open_stream


def _start(partitions: list[Partition]) -> Mapping[Partition, int]:
    return dict.fromkeys(partitions, 0)


def _end(partitions: list[Partition], lost: bool) -> None:
    """Nothing to put away."""


def main(stream_url: str, database_url: str, topic: str, instance: str, session_timeout_ms: str) -> None:
    engine = make_engine(database_url, application_name="member")
    stream = open_stream(stream_url, engine, session_timeout_ms=int(session_timeout_ms))
    consumer = stream.consumer("handler", topic, int(instance), _start, _end)
    owned: frozenset[Partition] = frozenset()
    while True:
        consumer.consume(100, 100)
        if consumer.owned() != owned:
            owned = consumer.owned()
            print(",".join(str(number) for number in sorted(one.number for one in owned)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
