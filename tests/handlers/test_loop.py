"""The loop loses nothing, does nothing twice, keeps its limits, and leaves when another owner has moved on."""

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import DeadlockDetected
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from db.progress import load_progress
from handlers.dead_letters import DeadLetterRules
from handlers.handler import Crash, Output, SlowDown
from handlers.loop import HandlerLoop, LoopLimits
from schemas.codec import codec
from schemas.messages import BulkProcessing, DeadLetter
from stream.interface import NewRecord, Producer, Record, Stream, StreamUnavailable, UnknownTopic
from tests.handlers.counting import (
    INPUT_TOPIC,
    OUTPUT_TOPIC,
    PARTITIONS,
    CountingHandler,
    create,
    input_record,
    make_counting_loop,
)

_LIMITS = LoopLimits(batch_items=100, batch_wait_ms=50, idle_journal_ms=100, pause_ms=5)


def append(stream: Stream, numbers: range) -> None:
    producer = stream.producer()
    producer.produce(input_record(number) for number in numbers)
    producer.wait_for_acks(10_000)
    producer.close()


def records(stream: Stream, topic: str) -> list[Record]:
    found: list[Record] = []
    for partition, end in stream.end_offsets(topic).items():
        offset = stream.start_offsets(topic)[partition]
        while offset < end:
            more = stream.read(topic, partition, offset, 1_000)
            found += more
            offset = more[-1].offset + 1 if more else end
    return found


def outputs(stream: Stream) -> Counter[int]:
    """How often each input's output stands on the output topic."""
    decode = codec(BulkProcessing).decode
    return Counter(message.transfer_key for record in records(stream, OUTPUT_TOPIC) for message in decode(record.value))


def applied(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM applied")).scalar_one())


def wait_until(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


@contextmanager
def running(*loops: HandlerLoop) -> Iterator[list[BaseException]]:
    """The loops in threads; yields what they failed with, and stops them at the end."""
    failures: list[BaseException] = []

    def run(loop: HandlerLoop) -> None:
        try:
            loop.run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        for loop in loops:
            loop.stop()
        for thread in threads:
            thread.join(timeout=30)


def test_every_input_is_applied_once_and_sent_once_in_bounded_batches(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    append(stream, range(2_000))
    handler = CountingHandler()
    with running(make_counting_loop(engine, stream, handler, _LIMITS)) as failures:
        wait_until(lambda: applied(engine) == 2_000)
    assert failures == []
    assert outputs(stream) == Counter(range(2_000))
    assert max(handler.batches) <= 100
    # Graceful: nothing is left to replay.
    with engine.begin() as tx:
        assert [row.outputs for row in load_progress(tx, "counting", INPUT_TOPIC, range(PARTITIONS))] == [None] * 4


def test_several_loops_share_the_partitions(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    loops = [make_counting_loop(engine, stream, CountingHandler(), _LIMITS) for _ in range(3)]
    with running(*loops):
        wait_until(lambda: all(loop.owned() for loop in loops))
        append(stream, range(1_000))
        wait_until(lambda: applied(engine) == 1_000)
        assert sum(len(loop.owned()) for loop in loops) == PARTITIONS
    assert outputs(stream) == Counter(range(1_000))


def test_a_batch_that_writes_too_much_is_cut(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    append(stream, range(500))
    limits = LoopLimits(batch_items=500, batch_wait_ms=50, batch_output_bytes_max=2_000)
    with running(make_counting_loop(engine, stream, CountingHandler(), limits)) as failures:
        wait_until(lambda: applied(engine) == 500)
    assert failures == []
    assert outputs(stream) == Counter(range(500))


def test_a_cut_batch_whose_attempt_fails_is_made_again_once(
    engine: Engine, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    """What was cut off is not put back before the first part is committed: else it would be worked on twice."""
    create(engine, stream)
    append(stream, range(400))
    limits = LoopLimits(batch_items=400, batch_wait_ms=50, batch_output_bytes_max=2_000, pause_ms=1)
    handler = CountingHandler()
    handle, calls = handler.handle, itertools.count(1)

    def handle_with_pauses(tx: object, messages: object) -> object:
        outputs = handle(tx, messages)  # type: ignore[arg-type]  # passed on as it came
        # After two and after some more cuts of the first batch, and later on.
        if next(calls) in {3, 7, 12, 20}:
            raise SlowDown("a test says so")
        return outputs

    handler.handle = handle_with_pauses  # type: ignore[method-assign, assignment]  # the store that is away now and then
    loop = make_counting_loop(engine, stream, handler, limits)
    with running(loop) as failures:
        wait_until(lambda: applied(engine) == 400)
    assert failures == []
    assert "session ended" not in caplog.text, "a part that was worked on twice ends the session at its second row"
    assert outputs(stream) == Counter(range(400))


@pytest.mark.parametrize("kind", ["bad", "poison"])
def test_one_bad_message_becomes_a_dead_letter_and_the_rest_goes_on(engine: Engine, stream: Stream, kind: str) -> None:
    """BULK-82: found by halving in savepoints, kept whole with where it stood and why, and given up by the handler."""
    create(engine, stream)
    append(stream, range(300))
    handler = CountingHandler(**{kind: frozenset({17, 230})})
    with running(make_counting_loop(engine, stream, handler, _LIMITS)) as failures:
        wait_until(lambda: applied(engine) == 300)
    assert failures == []
    assert outputs(stream) == Counter(set(range(300)) - {17, 230})
    letters = [
        letter
        for record in records(stream, f"{INPUT_TOPIC}-dead-letter")
        for letter in codec(DeadLetter).decode(record.value)
    ]
    kept = {handler_message.transfer_key for one in letters for handler_message in _decode(one)}
    assert kept == {17, 230}
    assert all(letter.reason for letter in letters)
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM applied WHERE instance = 'gave up'")).scalar_one() == 2


def _decode(letter: DeadLetter) -> list[Any]:
    return codec(CountingHandler.message).decode(letter.value)


def test_bytes_that_are_no_frame_are_kept_as_they_are(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    producer = stream.producer()
    producer.produce([NewRecord(INPUT_TOPIC, b"1", b"\x00garbage")])
    producer.wait_for_acks(10_000)
    producer.close()
    append(stream, range(10))
    with running(make_counting_loop(engine, stream, CountingHandler(), _LIMITS)):
        wait_until(lambda: applied(engine) == 10 and bool(records(stream, f"{INPUT_TOPIC}-dead-letter")))
    [record] = records(stream, f"{INPUT_TOPIC}-dead-letter")
    [letter] = codec(DeadLetter).decode(record.value)
    assert letter.value == b"\x00garbage"


def test_a_frame_of_a_newer_release_stops_the_handler(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    producer = stream.producer()
    producer.produce([NewRecord(INPUT_TOPIC, b"1", b"\xc3\x01" + b"newer!!!" + b"\x00")])
    producer.wait_for_acks(10_000)
    producer.close()
    with running(make_counting_loop(engine, stream, CountingHandler(), _LIMITS)) as failures:
        wait_until(lambda: bool(failures))
    assert isinstance(failures[0], Crash)
    assert "no schema has the fingerprint" in str(failures[0])


def test_a_bad_deploy_stops_instead_of_dead_lettering_everything(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    append(stream, range(200))
    limits = LoopLimits(batch_items=10, batch_wait_ms=50, dead_letters=DeadLetterRules(in_a_row_max=25))
    handler = CountingHandler(bad=frozenset(range(200)))
    with running(make_counting_loop(engine, stream, handler, limits)) as failures:
        wait_until(lambda: bool(failures))
    assert isinstance(failures[0], Crash)
    assert len(records(stream, f"{INPUT_TOPIC}-dead-letter")) <= 25


class ForgetfulHandler(CountingHandler):
    """Drops repeats, as every handler does."""

    def handle(self, tx: Connection, messages: Sequence[Any]) -> list[Output]:
        known = set(tx.execute(text("SELECT input FROM applied")).scalars())
        return super().handle(tx, [message for message in messages if message.transfer_key not in known])


def failing_producers(stream: Stream, errors: list[Exception]) -> Callable[[], Producer]:
    """Makes the stream's producers, each of which raises what is left of these before it takes anything."""
    make_producer = stream.producer

    class FailingProducer:
        def __init__(self) -> None:
            self.producer = make_producer()
            self.wait_for_acks, self.close = self.producer.wait_for_acks, self.producer.close

        def produce(self, records: Iterable[NewRecord]) -> None:
            if errors:
                raise errors.pop()
            self.producer.produce(records)

    return FailingProducer


def test_a_batch_that_is_committed_and_cannot_be_sent_is_sent_by_the_next_session(
    engine: Engine, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2: whoever leaves with something unsent leaves the journal of it, although nothing waits for an acknowledgement."""
    create(engine, stream)
    append(stream, range(100))
    # The last one comes first: a deadlock, for which a batch that is not committed is tried again.
    deadlock = OperationalError("append", None, DeadlockDetected())
    errors: list[Exception] = [StreamUnavailable("away"), StreamUnavailable("away"), deadlock]
    monkeypatch.setattr(stream, "producer", failing_producers(stream, errors))
    with running(make_counting_loop(engine, stream, ForgetfulHandler(), _LIMITS)) as failures:
        wait_until(lambda: outputs(stream) == Counter(range(100)))
    assert (failures, errors) == ([], [])
    assert applied(engine) == 100


def test_a_batch_that_is_committed_and_cannot_be_sent_is_never_tried_again(engine: Engine, stream: Stream) -> None:
    """D2: it would find repeats only, and its empty journal would take the place of the full one."""
    create(engine, stream)
    append(stream, range(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "producer", failing_producers(stream, [UnknownTopic(OUTPUT_TOPIC)]))
        with running(make_counting_loop(engine, stream, ForgetfulHandler(), _LIMITS)) as failures:
            wait_until(lambda: bool(failures))
    assert isinstance(failures[0], Crash)
    assert "committed and not sent" in str(failures[0])
    with running(make_counting_loop(engine, stream, ForgetfulHandler(), _LIMITS)) as failures:
        wait_until(lambda: outputs(stream) == Counter(range(100)))
    assert failures == []
    assert applied(engine) == 100


def test_large_dead_letters_of_one_key_are_records_of_their_own(engine: Engine, stream: Stream) -> None:
    """Together they would be more than a record may be, and the handler could never send what it has committed."""
    create(engine, stream)
    producer = stream.producer()
    producer.produce(NewRecord(INPUT_TOPIC, b"1", bytes(900_000)) for _ in range(3))
    producer.wait_for_acks(10_000)
    producer.close()
    with running(make_counting_loop(engine, stream, CountingHandler(), _LIMITS)) as failures:
        wait_until(lambda: len(records(stream, f"{INPUT_TOPIC}-dead-letter")) == 3)
    assert failures == []


def test_a_loop_whose_progress_another_owner_moved_is_fenced(engine: Engine, stream: Stream) -> None:
    """The row decides: what was done behind the back of its owner is rolled back, and read anew."""
    create(engine, stream)
    append(stream, range(100))
    handler = CountingHandler()
    handle = handler.handle
    moved = threading.Event()

    def handle_while_another_moves(tx: object, messages: object) -> object:
        if not moved.is_set():
            moved.set()
            with engine.begin() as other:
                other.execute(text("UPDATE handler_progress SET next_offset = next_offset + 1"))
        return handle(tx, messages)  # type: ignore[arg-type]  # passed on as it came

    handler.handle = handle_while_another_moves  # type: ignore[method-assign, assignment]  # the other owner's moment
    with running(make_counting_loop(engine, stream, handler, _LIMITS)) as failures:
        # Each partition lost its first input to the "other owner", and nothing else.
        wait_until(lambda: applied(engine) == 100 - PARTITIONS)
    assert failures == []
    assert sum(outputs(stream).values()) == 100 - PARTITIONS


def test_a_log_that_begins_beyond_the_progress_row_stops_the_handler(engine: Engine, stream: Stream) -> None:
    create(engine, stream)
    append(stream, range(200))
    for partition, end in stream.end_offsets(INPUT_TOPIC).items():
        stream.trim(INPUT_TOPIC, partition, end)
    append(stream, range(200, 400))
    with running(make_counting_loop(engine, stream, CountingHandler(), _LIMITS)) as failures:
        wait_until(lambda: bool(failures))
    assert isinstance(failures[0], Crash)
    assert "skipped in silence" in str(failures[0])


@pytest.mark.process
@pytest.mark.timeout(900)
def test_kill_9_at_random_points_loses_nothing(
    engine: Engine, stream: Stream, database_url: str, stream_url: str
) -> None:
    """D2, D10, BULK-134: every input applied once, every output there, repeats byte for byte."""
    create(engine, stream)
    inputs = 3_000
    append(stream, range(inputs))
    kills = _run_to_the_end(engine, database_url, stream_url, inputs)
    assert kills >= 5, "the test must have killed"
    assert set(outputs(stream)) == set(range(inputs))
    # A record that came twice is the very same record: frames are never put together anew.
    seen: dict[int, bytes] = {}
    decode = codec(BulkProcessing).decode
    for record in records(stream, OUTPUT_TOPIC):
        for message in decode(record.value):
            assert seen.setdefault(message.transfer_key, record.value) == record.value


def _run_to_the_end(engine: Engine, database_url: str, stream_url: str, inputs: int) -> int:
    """Workers, each started again as soon as it is dead; a last one that nobody kills drains the rest."""
    root = Path(__file__).parents[2]
    deadline = time.monotonic() + 300
    kills = 0
    while applied(engine) < inputs:
        assert time.monotonic() < deadline, f"{applied(engine)} of {inputs} after {kills} kills"
        done = _work(root, database_url, stream_url, seed=kills, one_in=25)
        kills += done == -9
    worker = _start(root, database_url, stream_url, seed=0, one_in=10**9)
    try:
        wait_until(lambda: not _journals(engine), seconds=60)
    finally:
        worker.terminate()
        worker.wait(timeout=30)
    return kills


def _journals(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM handler_progress WHERE outputs IS NOT NULL")).scalar_one())


def _start(root: Path, database_url: str, stream_url: str, *, seed: int, one_in: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.handlers.counting", database_url, stream_url, str(seed), str(one_in)],
        cwd=root,
        stderr=subprocess.DEVNULL,
    )


def _work(root: Path, database_url: str, stream_url: str, *, seed: int, one_in: int) -> int:
    """The exit code of a worker that ran until it was killed, or until a while had passed."""
    worker = _start(root, database_url, stream_url, seed=seed, one_in=one_in)
    try:
        return worker.wait(timeout=20)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        return 0
