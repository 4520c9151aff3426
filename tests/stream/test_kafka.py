"""What the Kafka stream does in its own way: static members, lost acks, a cluster that goes away, and scripts/services."""

import os
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stream.interface import NewRecord, NotAcknowledged, StreamUnavailable
from stream.kafka import KafkaStream
from stream.opening import open_stream
from tests.operations.processes import wait_until
from tests.stream.reader import Readers, turn_until
from tests.stream.workload import TOPIC, append, make_topic, member_process, numbered

pytestmark = pytest.mark.kafka

SERVICES = Path(__file__).parents[2] / "scripts" / "services"


@pytest.mark.process
def test_a_member_that_is_killed_and_comes_back_disturbs_nobody(
    kafka_url: str, engine: Engine, database_url: str, readers: Readers
) -> None:  # D10
    # Long enough for a process to start again on a busy machine.
    session_timeout_ms = 30_000
    stream = open_stream(kafka_url, engine, session_timeout_ms=session_timeout_ms)
    make_topic(stream, 4)
    reader = readers.of(stream, TOPIC)
    with member_process(kafka_url, database_url, session_timeout_ms) as process:
        turn_until([reader], lambda: len(reader.owned()) == 2)
        assert process.stdout is not None
        # It may have come first, and had all of them for a while.
        theirs = next(line for line in process.stdout if line.count(",") == 1)
        rebalances = list(reader.assigned), list(reader.revoked)
        process.send_signal(signal.SIGKILL)
    with member_process(kafka_url, database_url, session_timeout_ms) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == theirs
        reader.turn()
        assert (reader.assigned, reader.revoked) == rebalances
    reader.consumer.close()
    stream.close()


def test_a_member_whose_number_another_one_takes_hears_of_it(kafka_url: str, engine: Engine, readers: Readers) -> None:
    stream = open_stream(kafka_url, engine)
    make_topic(stream, 2)
    first, second = readers.of(stream, TOPIC), readers.of(stream, TOPIC)
    turn_until([first], lambda: len(first.owned()) == 2)

    def turn_both() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            second.turn()
            first.turn()

    with pytest.raises(StreamUnavailable, match="fenced"):
        turn_both()
    stream.close()


def test_records_that_are_not_acknowledged_in_time_make_the_producer_useless(
    kafka_url: str, kafka_bootstrap: str
) -> None:
    # Nothing is sent before it is asked for; a record that lingers for 2 ms may have arrived by then.
    stream = KafkaStream(kafka_bootstrap, namespace=kafka_url.rpartition("/")[2], linger_ms=5_000)
    make_topic(stream, 2)
    with closing(stream.producer()) as producer:
        producer.produce(numbered(5, 100))
        with pytest.raises(NotAcknowledged):
            producer.wait_for_acks(0)
        with pytest.raises(NotAcknowledged):
            producer.wait_for_acks(1_000)
        with pytest.raises(StreamUnavailable):
            producer.produce(numbered(5, 100))
    # A new one hands everything over again; what came twice is dropped by state, further on.
    append(stream, numbered(5, 100))
    assert sum(stream.end_offsets(TOPIC).values()) in range(100, 201)
    stream.close()


def test_a_full_queue_is_waited_for_and_then_given_up(kafka_url: str, kafka_bootstrap: str) -> None:
    namespace = kafka_url.rpartition("/")[2]
    stream = KafkaStream(kafka_bootstrap, namespace=namespace, producer_queue_kbytes_max=64, produce_wait_max_ms=20_000)
    make_topic(stream, 1)
    large = NewRecord(TOPIC, b"key", bytes(60_000))
    # Twenty times the queue: each waits until the ones before it have arrived.
    append(stream, [large] * 20)
    assert stream.end_offsets(TOPIC) == {0: 20}
    hasty = KafkaStream(kafka_bootstrap, namespace=namespace, producer_queue_kbytes_max=64, produce_wait_max_ms=0)
    with closing(hasty.producer()) as producer, pytest.raises(StreamUnavailable, match="queue was full"):
        producer.produce([large] * 20)
    stream.close()


def test_a_cluster_that_nobody_answers_for_is_stream_unavailable(readers: Readers) -> None:
    with socket.socket() as unheard:
        # Bound and not listening: nobody else gets the port, and connections to it are refused.
        unheard.bind(("127.0.0.1", 0))
        stream = KafkaStream(f"127.0.0.1:{unheard.getsockname()[1]}", request_timeout_ms=200)
        with closing(stream.producer()) as producer:
            for refused in (
                lambda: make_topic(stream, 1),
                lambda: stream.partitions(TOPIC),
                lambda: stream.end_offsets(TOPIC),
                lambda: producer.produce(numbered(1, 1)),
                lambda: readers.of(stream, TOPIC).turn(),
            ):
                with pytest.raises(StreamUnavailable):
                    refused()
        stream.close()


@pytest.mark.process
def test_services_start_a_broker_and_stop_it_under_its_clients(
    kafka_bootstrap: str, tmp_path: Path, readers: Readers
) -> None:
    def services(*command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"BULK_SWITCH_SERVICES_DATA": str(tmp_path)}
        return subprocess.run(
            [SERVICES, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    assert "kafka down\n" in services("status").stdout
    started = services("up", "kafka")
    try:
        assert started.returncode == 0, started.stderr
        url = started.stdout.strip()
        assert services("up", "kafka").stdout == started.stdout
        wait_until(lambda: f"kafka up {url}\n" in services("status").stdout, "a broker that answers")
        # Long enough for the first answers of a broker on a busy machine, which knows no producer's number yet.
        stream = KafkaStream(
            url.removeprefix("kafka://"), request_timeout_ms=5_000, brokers_down_max_ms=500, delivery_timeout_ms=15_000
        )
        stream.create_topics([])
        while True:
            # A broker listens a moment before it answers.
            try:
                make_topic(stream, 1)
                break
            except StreamUnavailable:
                continue
        append(stream, numbered(1, 1))
        reader = readers.of(stream, TOPIC)
        turn_until([reader], lambda: len(reader.records) == 1)
        producer = stream.producer()
    finally:
        assert services("down").returncode == 0
    assert services("status").returncode == 1

    producer.produce(numbered(1, 1))
    with pytest.raises(NotAcknowledged):
        producer.wait_for_acks(30_000)
    producer.close()
    with pytest.raises(StreamUnavailable):
        turn_until([reader], lambda: False)
    reader.consumer.close()
    stream.close()
    assert services("down").returncode == 0
