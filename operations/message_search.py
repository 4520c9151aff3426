"""Finding the messages about one bulk or transfer that the topics still hold, without belonging to any group.

A record's key says in which partition it stands, so of every topic only the partitions of the keys are read: the
bulkTransferId or transferId, and on the position topics the two accounts. Reading begins at the first record that was
written after the request was received (less a minute, because clocks differ), ends at the end that the partition had when
it began, and reads `records_max` records of a partition at most; what was left unread is said. A record holds a frame of
messages of one key: of a transfer only the messages about it are kept, of a bulk as a whole those about its items are
counted, record by record.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.identifiers import id_bytes
from operations.message_text import decode_value, plain
from schemas.codec import Undecodable, UnknownSchema, codec
from schemas.messages import DeadLetter
from schemas.topics import CATALOGUE, DEAD_LETTER_SUFFIX
from stream.interface import Record, Stream, partition_of

RECORDS_MAX = 100_000
_RECORDS_PER_READ = 2_000
_CLOCKS_MS = 60_000


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """A message and where it stands; `is_dead_letter`: it is one, and `message` is what it carries."""

    at: datetime
    topic: str
    partition: int
    offset: int
    message: dict[str, Any]
    is_dead_letter: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: messages with one of the keys that name the entity, about `transfer_id` if that is given.

    `keys` are record keys; an id stands in messages as `bulk_transfer_id` or `transfer_id`.
    """

    keys: frozenset[bytes]
    bulk_transfer_id: str | None
    transfer_id: str | None
    from_ms: int

    def is_about(self, message: dict[str, Any]) -> bool:
        of_transfer = message.get("transfer_id")
        if self.transfer_id is not None and of_transfer is not None:
            return bool(of_transfer == self.transfer_id)
        return self.bulk_transfer_id is not None and message.get("bulk_transfer_id") == self.bulk_transfer_id


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, topic by topic, how many records were read, and which partitions were not read to their end."""

    messages: list[FoundMessage]
    records_read: int
    unread: list[str]


def search_messages(
    stream: Stream,
    wanted: Wanted,
    *,
    records_max: int = RECORDS_MAX,
    progress: Callable[[str], None] = lambda _: None,
    topics: Iterable[str] = tuple(CATALOGUE),
) -> Search:
    """Read the partitions of the keys and keep what is wanted; raises StreamUnavailable."""
    search = Search([], 0, [])
    read = 0
    for topic in topics:
        ends = stream.end_offsets(topic)
        starts = stream.start_offsets(topic)
        for partition in sorted({partition_of(key, len(ends)) for key in wanted.keys}):
            if starts[partition] == ends[partition]:
                continue
            first = max(stream.offset_from(topic, partition, wanted.from_ms - _CLOCKS_MS), starts[partition])
            last = min(ends[partition], first + records_max)
            for record in _records(stream, topic, partition, first, last):
                read += 1
                if record.key in wanted.keys:
                    search.messages.extend(_found(record, wanted))
            progress(f"{read:,} records read; {topic}")
            if last < ends[partition]:
                search.unread.append(f"{topic}/{partition} from offset {last} to {ends[partition] - 1}")
    return Search(search.messages, read, search.unread)


def _records(stream: Stream, topic: str, partition: int, first: int, last: int) -> Iterator[Record]:
    offset = first
    while offset < last:
        records: Sequence[Record] = stream.read(topic, partition, offset, min(_RECORDS_PER_READ, last - offset))
        if not records:
            return
        yield from records
        offset = records[-1].offset + 1


def _found(record: Record, wanted: Wanted) -> list[FoundMessage]:
    topic = record.partition.topic
    at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    place = (at, topic, record.partition.number, record.offset)
    try:
        messages = codec(CATALOGUE[topic].message).decode(record.value)
    except (Undecodable, UnknownSchema):
        # Its key is the wanted one, or that of the same account: told as it is, because nobody can say what it is about.
        return [FoundMessage(*place, {"undecodable_bytes": len(record.value)})] if wanted.keys == {record.key} else []
    if topic.endswith(DEAD_LETTER_SUFFIX):
        return [
            FoundMessage(*place, one, is_dead_letter=True, reason=letter.reason)
            for letter in messages
            for one in _carried(letter)
            if wanted.is_about(one)
        ]
    if wanted.transfer_id is None:
        return [FoundMessage(*place, one) for one in _counted(messages, wanted)]
    # Bytes are compared before they are turned into text: a frame of an account holds a thousand others.
    about = (plain(one) for one in messages if _may_be_about(one, wanted))
    return [FoundMessage(*place, one) for one in about if wanted.is_about(one)]


def _counted(messages: Sequence[Any], wanted: Wanted) -> list[dict[str, Any]]:
    """The messages about the bulk itself, and of those about its items how many say what."""
    of_items = Counter((one.type, one.action, one.status) for one in messages if hasattr(one, "transfer_key"))
    of_bulk = [plain(one) for one in messages if not hasattr(one, "transfer_key")]
    counts = [
        {"type": type_, "action": action, "status": status, "items": count}
        for (type_, action, status), count in of_items.items()
    ]
    return [one for one in of_bulk if wanted.is_about(one)] + counts


def _may_be_about(message: Any, wanted: Wanted) -> bool:
    of_transfer = getattr(message, "transfer_id", None)
    return wanted.transfer_id is None or of_transfer is None or of_transfer == id_bytes(wanted.transfer_id)


def _carried(letter: DeadLetter) -> Sequence[dict[str, Any]]:
    source = CATALOGUE.get(letter.topic)
    return () if source is None else decode_value(source.message, letter.value).messages
