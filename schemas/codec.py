"""Messages to bytes and back: Avro single-object encoding, a record's value being an array of messages of one key.

    C3 01 | 8 bytes: CRC-64-AVRO fingerprint of the writer's array schema, little-endian | the Avro array

An array (a *frame*) because one record per message costs half of the throughput on a real broker; handlers never see it.
The fingerprint finds the writer's schema among all versions in `avro/<record>/vN.avsc`; what was written by any version
is read as the newest. Unknown fingerprints mean that the writer is newer than this reader: deploy readers first.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.messages import Message

MARKER: Final = b"\xc3\x01"
_HEADER_LENGTH = len(MARKER) + 8


class Undecodable(Exception):
    """These bytes are not a frame: no marker, or not what their schema says."""


class UnknownSchema(Exception):
    """The fingerprint is of no schema this release knows; a newer release wrote it."""


def record_name(message: type[Message]) -> str:
    """The folder under avro/ that holds the versions of a message's schema."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", message.__name__).lower()


def schema_versions(message: type[Message]) -> list[dict[str, Any]]:
    """All schemas ever written for a message, oldest first, as parsed JSON."""
    folder = files("schemas") / "avro" / record_name(message)
    names = sorted((entry.name for entry in folder.iterdir()), key=lambda name: int(name[1:].partition(".")[0]))
    return [json.loads((folder / name).read_text()) for name in names]


def frame_schema(record: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": record}


def frame_fingerprint(record: dict[str, Any]) -> bytes:
    """The 8 bytes that stand for the frame schema of this record schema."""
    canonical = to_parsing_canonical_form(frame_schema(record))
    return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


class FrameCodec:
    """Encodes and decodes the frames of one message class."""

    def __init__(self, message: type[Message]) -> None:
        versions = schema_versions(message)
        self._message = message
        self._names = tuple(message.__dataclass_fields__)
        self._row = _row_maker(self._names)
        self._newest = fastavro.parse_schema(frame_schema(versions[-1]))
        self._prefix = MARKER + frame_fingerprint(versions[-1])
        # The newest version needs no resolution between writer's and reader's schema, which is what makes it fast.
        self._writers = {
            frame_fingerprint(version): fastavro.parse_schema(frame_schema(version)) for version in versions
        }

    def encode(self, messages: Sequence[Message]) -> bytes:
        out = io.BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self._newest, list(map(self._row, messages)))
        return out.getvalue()

    def decode(self, value: bytes) -> list[Any]:
        """The messages of a frame; raises Undecodable, UnknownSchema."""
        if len(value) < _HEADER_LENGTH or not value.startswith(MARKER):
            raise Undecodable("the value does not begin with the marker of an Avro single object")
        writer = self._writers.get(value[len(MARKER) : _HEADER_LENGTH])
        if writer is None:
            written = value[len(MARKER) : _HEADER_LENGTH].hex()
            raise UnknownSchema(f"{self._message.__name__}: no schema has the fingerprint {written}")
        body = io.BytesIO(value)
        body.seek(_HEADER_LENGTH)
        reader = None if writer is self._writers[self._prefix[len(MARKER) :]] else self._newest
        try:
            rows: Any = fastavro.schemaless_reader(body, writer, reader)
            if body.tell() != len(value):
                raise Undecodable(f"{len(value) - body.tell()} bytes are left behind the frame")
            if reader is None:
                # Written by this very version: the fields stand in the order of the class.
                return [self._message(*row.values()) for row in rows]
            return [self._message(**row) for row in rows]
        except (EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, MemoryError) as error:
            raise Undecodable(f"not a frame of {self._message.__name__}: {error}") from error


def _row_maker(names: Sequence[str]) -> Callable[[Message], dict[str, Any]]:
    """A function that writes a message as a literal dict: half the time of zipping names and values, at every hop."""
    fields = ", ".join(f"{name!r}: message.{name}" for name in names)
    maker: Callable[[Message], dict[str, Any]] = eval(f"lambda message: {{{fields}}}")  # noqa: S307 - names of our classes
    return maker


_codecs: dict[Any, FrameCodec] = {}


def codec(message: Any) -> FrameCodec:
    """The codec of a message class; made once per process."""
    found = _codecs.get(message)
    if found is None:
        found = _codecs[message] = FrameCodec(message)
    return found
