"""What a reader owns can be asked from any thread, also while it wins and loses partitions."""

import sys
import threading
from collections.abc import Iterator

import pytest

from stream.interface import Partition
from stream.kafka_consumer import KafkaConsumer
from stream.table_consumer import TableConsumer

NUMBERS = range(500)


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient_threads")
@pytest.mark.parametrize("kind", [TableConsumer, KafkaConsumer])
def test_asking_what_is_owned_while_it_changes(kind: type[TableConsumer] | type[KafkaConsumer]) -> None:
    consumer = kind.__new__(kind)
    consumer._names = {number: Partition("topic", number) for number in NUMBERS}
    consumer._positions = positions = {}
    if isinstance(consumer, KafkaConsumer):
        consumer._client = None
    stopping = threading.Event()

    def win_and_lose() -> None:
        while not stopping.is_set():
            for number in NUMBERS:
                positions[number] = 0
            positions.clear()

    changing = threading.Thread(target=win_and_lose)
    changing.start()
    try:
        for _ in range(1_000):
            assert consumer.owned() <= {Partition("topic", number) for number in NUMBERS}
    finally:
        stopping.set()
        changing.join()
