"""The outputs of a batch as bytes: what stands in handler_progress.outputs, and is produced again after a crash.

Outputs of one topic and key are put together into frames, in the order in which the handler gave them; a frame is one
record. The journal is the list of those very records, so a replay is byte for byte what was, or would have been, sent the
first time. It is not compressed: a row that lives for milliseconds is written once and read only after a crash, and
deflating it cost 5 µs a transfer.

In the journal a record is the lengths of its topic, key and value, and then these. The highest bit of the topic's length
says that headers follow, each with the lengths of its name and value: a journal without headers, which is every journal
while tracing is off, is read and written by releases that know none.
"""

import struct
from collections.abc import Iterable, Sequence

from handlers.handler import Output
from handlers.tracing import headers_of_outputs
from schemas.codec import codec
from schemas.messages import DeadLetter, Message
from stream.interface import NewRecord

_LENGTHS = struct.Struct(">HHI")
_HAS_HEADERS = 0x8000
_HEADER_COUNT = struct.Struct(">H")
_HEADER_LENGTHS = struct.Struct(">HI")

_Headers = tuple[tuple[str, bytes], ...]


def frames(outputs: Iterable[Output], frame_messages_max: int) -> list[NewRecord]:
    """One record for up to `frame_messages_max` messages of a topic and key; order is kept within each.

    A dead letter, which may be as large as a record, is a record alone.
    In a batch that is traced a record is of one trace, too, and its headers say which.
    """
    headers_of = headers_of_outputs()
    groups: dict[tuple[str, bytes, type, _Headers], list[Message]] = {}
    for output in outputs:
        headers = () if headers_of is None else headers_of(output.message)
        groups.setdefault((output.topic, output.key, type(output.message), headers), []).append(output.message)
    records: list[NewRecord] = []
    for (topic, key, message_type, headers), messages in groups.items():
        encode = codec(message_type).encode
        length = 1 if message_type is DeadLetter else frame_messages_max
        records += [
            NewRecord(topic, key, encode(messages[first : first + length]), headers)
            for first in range(0, len(messages), length)
        ]
    return records


def pack(records: Sequence[NewRecord]) -> bytes | None:
    """The journal of these records; None for none."""
    if not records:
        return None
    parts: list[bytes] = []
    for record in records:
        topic = record.topic.encode()
        flag = _HAS_HEADERS if record.headers else 0
        parts += (_LENGTHS.pack(flag | len(topic), len(record.key), len(record.value)), topic, record.key, record.value)
        if record.headers:
            parts.append(_HEADER_COUNT.pack(len(record.headers)))
            for name, value in record.headers:
                parts += (_HEADER_LENGTHS.pack(len(name.encode()), len(value)), name.encode(), value)
    return b"".join(parts)


def unpack(journal: bytes) -> list[NewRecord]:
    """The records of a journal, as they were packed."""
    body = _Reader(memoryview(journal))
    records: list[NewRecord] = []
    while body.left():
        topic_length, key_length, value_length = body.numbers(_LENGTHS)
        topic, key, value = (body.take(length) for length in (topic_length & ~_HAS_HEADERS, key_length, value_length))
        headers = _unpack_headers(body) if topic_length & _HAS_HEADERS else ()
        records.append(NewRecord(topic.decode(), key, value, headers))
    return records


def _unpack_headers(body: "_Reader") -> _Headers:
    [count] = body.numbers(_HEADER_COUNT)
    headers = []
    for _ in range(count):
        name_length, value_length = body.numbers(_HEADER_LENGTHS)
        headers.append((body.take(name_length).decode(), body.take(value_length)))
    return tuple(headers)


class _Reader:
    """Reads bytes from the front."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._position = 0

    def left(self) -> bool:
        return self._position < len(self._body)

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        numbers: tuple[int, ...] = form.unpack_from(self._body, self._position)
        self._position += form.size
        return numbers

    def take(self, length: int) -> bytes:
        part = bytes(self._body[self._position : self._position + length])
        self._position += length
        return part
