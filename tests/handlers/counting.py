"""A handler for tests of the loop: each input writes one row and sends one output. As a program: a worker that kills itself.

The rows stand in a table of the test's own, keyed by input, so an input that is worked on twice is an error at once.
"""

import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from db.engine import make_engine
from domain.identifiers import id_bytes
from handlers.handler import BadMessage, Output
from handlers.loop import HandlerLoop, LoopLimits
from schemas.codec import codec
from schemas.messages import BulkProcessing, TransferPosition
from stream.interface import NewRecord, Stream, TopicDescription
from stream.opening import open_stream

INPUT_TOPIC = "topic-input"
OUTPUT_TOPIC = "topic-output"
PARTITIONS = 4
_ID = id_bytes("b51ec534-ee48-4575-b6a9-ead2955b8069")


def create(engine: Engine, stream: Stream) -> None:
    """The table and the topics."""
    with engine.begin() as tx:
        tx.execute(text("CREATE TABLE applied (input bigint PRIMARY KEY, instance text NOT NULL)"))
    topics = (INPUT_TOPIC, OUTPUT_TOPIC, f"{INPUT_TOPIC}-dead-letter")
    stream.create_topics(TopicDescription(topic, PARTITIONS, 86_400_000) for topic in topics)


def input_record(number: int) -> NewRecord:
    message = TransferPosition("position", "bulk-prepare", "success", _ID, number, _ID)
    return NewRecord(INPUT_TOPIC, str(number % 50).encode(), codec(TransferPosition).encode([message]))


class CountingHandler:
    """`poison` are inputs that raise, as a bug would; `bad` are refused as dead letters."""

    name = "counting"
    topic = INPUT_TOPIC
    message = TransferPosition

    def __init__(self, *, poison: frozenset[int] = frozenset(), bad: frozenset[int] = frozenset()) -> None:
        self.poison = poison
        self.bad = bad
        self.batches: list[int] = []

    def weight(self, message: TransferPosition) -> int:
        return 1

    def handle(self, tx: Connection, messages: Sequence[Any]) -> list[Output]:
        self.batches.append(len(messages))
        numbers = [message.transfer_key for message in messages]
        if self.bad & set(numbers):
            raise BadMessage("a bad one is among them")
        if self.poison & set(numbers):
            raise ZeroDivisionError("a bug")
        tx.execute(
            text("INSERT INTO applied SELECT n, :instance FROM unnest(CAST(:numbers AS bigint[])) AS n"),
            {"numbers": numbers, "instance": str(os.getpid())},
        )
        return [
            Output(
                OUTPUT_TOPIC,
                str(number % 7).encode(),
                BulkProcessing("bulk-processing", "bulk-prepare", "success", _ID, number, _ID, None, None),
            )
            for number in numbers
        ]

    def give_up(self, tx: Connection, message: TransferPosition, reason: str) -> list[Output]:
        tx.execute(text("INSERT INTO applied VALUES (:number, 'gave up')"), {"number": message.transfer_key})
        return []


def make_counting_loop(engine: Engine, stream: Stream, handler: CountingHandler, limits: LoopLimits) -> HandlerLoop:
    return HandlerLoop(
        handler,
        engine,
        stream,
        limits,
        lambda instance, on_assign, on_revoke: stream.consumer(
            handler.name, handler.topic, instance, on_assign, on_revoke
        ),
    )


def _die_sometimes(chance: random.Random, one_in: int, *objects: tuple[object, str]) -> None:
    """Before or after any of these methods the process may be gone, as after a kill -9."""
    for owner, name in objects:
        _wrap(owner, name, chance, one_in)


def _wrap(owner: Any, name: str, chance: random.Random, one_in: int) -> None:
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*arguments: Any, **named: Any) -> Any:
        _maybe_die(chance, one_in)
        result = inner(*arguments, **named)
        _maybe_die(chance, one_in)
        return result

    setattr(owner, name, outer)


def _maybe_die(chance: random.Random, one_in: int) -> None:
    if chance.randrange(one_in) == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Arguments: database URL, stream URL, seed, and one in how many crossings of a line is deadly."""
    database_url, stream_url, seed, one_in = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    engine = make_engine(database_url, application_name="counting", pool_size=5)
    stream = open_stream(stream_url, engine)
    chance = random.Random(seed)
    producer_class = type(stream.producer())
    _die_sometimes(chance, one_in, (producer_class, "produce"), (producer_class, "wait_for_acks"))
    for name in ("commit", "before_cursor_execute"):
        event.listen(engine, name, lambda *_, **__: _maybe_die(chance, one_in * 3))
    limits = LoopLimits(batch_items=100, batch_wait_ms=50, frame_messages_max=7, records_ahead_max=150)
    loop = make_counting_loop(engine, stream, CountingHandler(), limits)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.run()


if __name__ == "__main__":
    main()
