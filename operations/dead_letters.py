"""Dead letters: messages that a handler could not work on, listed, read in full, and sent again to where they came from.

A dead letter carries the message as bytes, its key, and the place where it stood. Sent again it goes to its source topic
under its own key, so it is read by the same partition's reader, and is a message like any other: what it is about has
usually been ended by the handler that gave up (an item as RECEIVED_INVALID, a bulk as REJECTED), and then the states drop
it. Sending it twice is as harmless as any redelivery. The dead letter itself stays where it is until its time is over.

An audit row stands in the database before anything is sent: an act may have failed half way, but none is unknown. What is
read is bounded: `records_max` of a topic, from its oldest record on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from db.audit import write_audit
from operations.message_text import DecodedValue, decode_value
from schemas.codec import Undecodable, UnknownSchema, codec
from schemas.messages import DeadLetter
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX, dead_letter_topic
from stream.interface import NewRecord, Record, Stream

_RECORDS_PER_READ = 100
_ACKS_WAIT_MS = 10_000


class NoSuchDeadLetters(Exception):
    """What was asked for is not there; the text says what is."""


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A dead letter and its place; `letter` is None where the record itself cannot be decoded, `unreadable` says why."""

    topic: str
    partition: int
    offset: int
    at: datetime
    letter: DeadLetter | None
    unreadable: str | None = None

    def content(self) -> DecodedValue:
        """The message that became a dead letter."""
        if self.letter is None:
            return DecodedValue((), self.unreadable)
        source = CATALOGUE.get(self.letter.topic)
        if source is None:
            return DecodedValue((), f"{self.letter.topic} is no topic of this release", self.letter.value.hex())
        return decode_value(source.message, self.letter.value)


def letter_topics(topic: str | None) -> list[str]:
    """The dead-letter topics, or the one that is meant by its own name or its source's; raises NoSuchDeadLetters."""
    everything = [name for name in CATALOGUE if name.endswith(DEAD_LETTER_SUFFIX)]
    if topic is None:
        return everything
    wanted = topic if topic.endswith(DEAD_LETTER_SUFFIX) else dead_letter_topic(topic)
    if wanted not in everything:
        raise NoSuchDeadLetters(f"no topic {wanted}; there are {', '.join(everything)}")
    return [wanted]


def read_letters(stream: Stream, topic: str | None, records_max: int) -> list[FoundLetter]:
    """The oldest dead letters of a topic, or of all; `records_max` of each topic."""
    found: list[FoundLetter] = []
    for name in letter_topics(topic):
        ends = stream.end_offsets(name)
        count = 0
        for partition, start in sorted(stream.start_offsets(name).items()):
            for record in _records(stream, name, partition, start, ends[partition], records_max - count):
                found.append(_found(record))
                count += 1
    return found


def read_letter(stream: Stream, topic: str, partition: int, offset: int) -> FoundLetter:
    """One dead letter; raises NoSuchDeadLetters."""
    [name] = letter_topics(topic)
    if partition not in stream.end_offsets(name):
        raise NoSuchDeadLetters(f"{name} has no partition {partition}")
    start, end = stream.start_offsets(name)[partition], stream.end_offsets(name)[partition]
    if start <= offset < end:
        for record in stream.read(name, partition, offset, 1):
            if record.offset == offset:
                return _found(record)
    raise NoSuchDeadLetters(f"{name}/{partition} holds the offsets {start} to {end - 1}, not {offset}")


def send_again(engine: Engine, stream: Stream, letters: Sequence[FoundLetter], *, actor: str) -> None:
    """Put the messages on their source topics again, each with its own key, and wait until they are kept there.

    Raises NoSuchDeadLetters when one of them cannot be read: then nothing is sent.
    """
    records = [_record(found) for found in letters]
    with engine.begin() as tx:
        for found, record in zip(letters, records, strict=True):
            write_audit(
                tx,
                actor=actor,
                action="send_dead_letter_again",
                subject=f"{found.topic}/{found.partition}/{found.offset}",
                before=None,
                after={"topic": record.topic, "key": record.key.hex()},
            )
    producer = stream.producer()
    try:
        producer.produce(records)
        producer.wait_for_acks(_ACKS_WAIT_MS)
    finally:
        producer.close()


def _record(found: FoundLetter) -> NewRecord:
    if found.letter is None or found.letter.topic not in CATALOGUE:
        why = found.unreadable or "its source is no topic of this release"
        raise NoSuchDeadLetters(f"{found.topic}/{found.partition}/{found.offset} cannot be sent again: {why}")
    return NewRecord(found.letter.topic, found.letter.key, found.letter.value)


def _records(stream: Stream, topic: str, partition: int, start: int, end: int, records_max: int) -> Iterator[Record]:
    offset, left = start, records_max
    while offset < end and left > 0:
        records = stream.read(topic, partition, offset, min(_RECORDS_PER_READ, left))
        yield from records
        if not records:
            return
        left -= len(records)
        offset = records[-1].offset + 1


def _found(record: Record) -> FoundLetter:
    place = (record.partition.topic, record.partition.number, record.offset)
    try:
        [letter] = codec(DeadLetter).decode(record.value)
    except (Undecodable, UnknownSchema, ValueError) as reason:
        return FoundLetter(*place, _instant(record.timestamp_ms), None, f"no dead letter of this release: {reason}")
    return FoundLetter(*place, _instant(letter.at_ms), letter)


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
