"""The outputs of a batch as bytes: what stands in handler_progress.outputs, and is produced again after a crash.

Outputs of one topic and key are put together into frames, in the order in which the handler gave them; a frame is one
record. The journal is the list of those very records, so a replay is byte for byte what was, or would have been, sent the
first time. It is not compressed: a row that lives for milliseconds is written once and read only after a crash, and
deflating it cost 5 µs a transfer.
"""

import struct
from collections.abc import Iterable, Sequence

from handlers.handler import Output
from schemas.codec import codec
from schemas.messages import Message
from stream.interface import NewRecord

_LENGTHS = struct.Struct(">HHI")


def frames(outputs: Iterable[Output], frame_messages_max: int) -> list[NewRecord]:
    """One record for up to `frame_messages_max` messages of a topic and key; order is kept within each."""
    groups: dict[tuple[str, bytes, type], list[Message]] = {}
    for output in outputs:
        groups.setdefault((output.topic, output.key, type(output.message)), []).append(output.message)
    records: list[NewRecord] = []
    for (topic, key, message_type), messages in groups.items():
        encode = codec(message_type).encode
        records += [
            NewRecord(topic, key, encode(messages[first : first + frame_messages_max]))
            for first in range(0, len(messages), frame_messages_max)
        ]
    return records


def pack(records: Sequence[NewRecord]) -> bytes | None:
    """The journal of these records; None for none."""
    if not records:
        return None
    parts: list[bytes] = []
    for record in records:
        topic = record.topic.encode()
        parts += (_LENGTHS.pack(len(topic), len(record.key), len(record.value)), topic, record.key, record.value)
    return b"".join(parts)


def unpack(journal: bytes) -> list[NewRecord]:
    """The records of a journal, as they were packed."""
    body = memoryview(journal)
    records: list[NewRecord] = []
    position = 0
    while position < len(body):
        topic_length, key_length, value_length = _LENGTHS.unpack_from(body, position)
        position += _LENGTHS.size
        parts: list[bytes] = []
        for length in (topic_length, key_length, value_length):
            parts.append(bytes(body[position : position + length]))
            position += length
        records.append(NewRecord(parts[0].decode(), parts[1], parts[2]))
    return records
