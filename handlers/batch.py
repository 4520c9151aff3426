"""A batch: records with the messages decoded from them, how it is cut to size, and how its one bad message is found."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from domain.identifiers import id_text
from handlers.handler import BadMessage, Crash, Handler, Output, SlowDown
from schemas.codec import Undecodable, UnknownSchema, codec
from schemas.messages import DeadLetter
from schemas.topics import dead_letter_topic
from stream.interface import Partition, Record, StreamUnavailable
from stream.limits import RECORD_BYTES_MAX

_log = logging.getLogger(__name__)

_DEAD_LETTER_BYTES_MAX = RECORD_BYTES_MAX - 10_000


class Entry(NamedTuple):
    """One message and the record it stood in."""

    record: Record
    message: Any


@dataclass(slots=True)
class Batch:
    """Records in the order in which they were read; `weight` is the items they make work for."""

    records: list[Record]
    messages: list[Entry] = field(default_factory=list)
    undecodable: list[tuple[Record, str]] = field(default_factory=list)
    weight: int = 0
    # What it was put together from, a record each; [] for such a part itself.
    parts: list["Batch"] = field(default_factory=list)
    # Whether the next attempt goes message by message, in savepoints.
    careful: bool = False
    # Whether a unique violation is still taken for a race that another transaction won.
    races_are_bugs: bool = False

    def next_offsets(self) -> dict[Partition, int]:
        return {record.partition: record.offset + 1 for record in self.records}

    def read_ms(self, partition: Partition) -> int:
        return max(record.timestamp_ms for record in self.records if record.partition == partition)

    def halves(self) -> tuple["Batch", list["Batch"]]:
        """The first half of the records as a batch, and the others one by one; there are at least two records."""
        middle = len(self.parts) // 2
        return merged(self.parts[:middle]), self.parts[middle:]


def merged(parts: list[Batch]) -> Batch:
    """One batch of several that hold a record each."""
    return Batch(
        [record for part in parts for record in part.records],
        [entry for part in parts for entry in part.messages],
        [pair for part in parts for pair in part.undecodable],
        sum(part.weight for part in parts),
        parts,
    )


def decode_record(handler: Handler, record: Record) -> Batch:
    """A batch of one record. Bytes that are no frame are set aside; a frame of an unknown schema raises Crash."""
    try:
        messages = codec(handler.message).decode(record.value)
    except UnknownSchema as newer:
        raise Crash(f"{handler.name}: {newer}; a reader must be deployed before the writers") from newer
    except Undecodable as bad:
        return Batch([record], undecodable=[(record, str(bad))], weight=1)
    weight = sum(handler.weight(message) for message in messages)
    return Batch([record], [Entry(record, message) for message in messages], weight=max(weight, 1))


def split_off(ahead: deque[Batch], batch_items: int) -> Batch:
    """Take from the left as many records as fit `batch_items`, at least one."""
    parts = [ahead.popleft()]
    weight = parts[0].weight
    while ahead and weight + ahead[0].weight <= batch_items:
        parts.append(ahead.popleft())
        weight += parts[-1].weight
    return merged(parts)


class Careful:
    """Works on a batch in savepoints, halving what fails until the bad messages stand alone."""

    def __init__(self, handler: Handler, tx: Connection, *, races_are_bugs: bool) -> None:
        self._handler = handler
        self._tx = tx
        self._races_are_bugs = races_are_bugs
        self._bad = 0

    def handle(self, batch: Batch) -> tuple[list[Output], int]:
        """The outputs, dead letters among them, and how many messages became dead letters."""
        outputs = [self._set_aside(record, reason) for record, reason in batch.undecodable]
        if batch.messages:
            outputs += self._bisect(batch.messages)
        return outputs, self._bad

    def _set_aside(self, record: Record, reason: str) -> Output:
        self._log(record, reason)
        return self._dead_letter(record, record.value, reason)

    def _bisect(self, entries: Sequence[Entry]) -> list[Output]:
        try:
            with self._tx.begin_nested():
                return list(self._handler.handle(self._tx, [entry.message for entry in entries]))
        except (SlowDown, Crash, StreamUnavailable):
            raise
        except DBAPIError as error:
            # Data errors (SQLSTATE classes 22 and 23) are the message's fault; everything else is the database's.
            sqlstate = str(getattr(error.orig, "sqlstate", ""))
            lost_race = sqlstate == "23505" and not self._races_are_bugs
            if lost_race or not sqlstate.startswith(("22", "23")):
                raise
            failure: Exception = error
        except Exception as error:
            failure = error
        if len(entries) > 1:
            middle = len(entries) // 2
            return self._bisect(entries[:middle]) + self._bisect(entries[middle:])
        return self._give_up(entries[0], failure)

    def _give_up(self, entry: Entry, failure: Exception) -> list[Output]:
        kind = "" if isinstance(failure, BadMessage) else f"{type(failure).__name__}: "
        reason = f"{kind}{failure}".partition("\n")[0][:500]
        self._log(entry.record, reason, entry.message, failure)
        self._bad += 1
        with self._tx.begin_nested():
            outputs = self._handler.give_up(self._tx, entry.message, reason)
        value = codec(self._handler.message).encode([entry.message])
        return [self._dead_letter(entry.record, value, reason), *outputs]

    def _log(self, record: Record, reason: str, message: Any = None, failure: Exception | None = None) -> None:
        """Where the message stood, which bulk and transfer it is about if it can be read, and why it cannot go on."""
        about: dict[str, object] = {
            "handler": self._handler.name,
            "topic": record.partition.topic,
            "partition": record.partition.number,
            "offset": record.offset,
        }
        for name in ("bulk_transfer_id", "transfer_id"):
            if (found := getattr(message, name, None)) is not None:
                about[name] = id_text(found)
        text = "%s: dead letter at %s offset %d: %s"
        _log.error(text, self._handler.name, record.partition, record.offset, reason, exc_info=failure, extra=about)

    def _dead_letter(self, record: Record, value: bytes, reason: str) -> Output:
        letter = DeadLetter(
            handler=self._handler.name,
            topic=record.partition.topic,
            partition=record.partition.number,
            offset=record.offset,
            key=record.key,
            # A record that is as large as a record may be must still fit into one, with this around it.
            value=value[:_DEAD_LETTER_BYTES_MAX],
            reason=reason,
            at_ms=time.time_ns() // 1_000_000,
        )
        return Output(dead_letter_topic(record.partition.topic), record.key, letter)
