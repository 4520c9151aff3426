"""Messages to bytes and back: Avro single-object encoding, a record's value being a frame of messages of one key.

    C3 01 | 8 bytes: CRC-64-AVRO fingerprint of the writer's frame schema, little-endian | an Avro array of runs
    run     = the fields that its messages share, each once | an Avro array of messages, with the fields that differ

A *frame* because one record per message costs half of the throughput on a real broker; *runs* because what neighbours say
alike would be half of its bytes. Which fields a run shares stands in the .avsc (`"shared": true`), and never changes in a
later version. Messages come out in the order in which they went in; handlers see neither frames nor runs.

The fingerprint finds the writer's schema among all versions in `avro/<record>/vN.avsc`; what was written by any version
is read as the newest. Unknown fingerprints mean that the writer is newer than this reader: deploy readers first.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.messages import Message

MARKER: Final = b"\xc3\x01"
_HEADER_LENGTH = len(MARKER) + 8
# In an .avsc: this field stands once per run. And where a run's messages stand.
_SHARED = "shared"
_MESSAGES = "messages"


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
    """The schema of what stands on a topic, made of the record that is one message."""
    shared, own = ([field for field in record["fields"] if bool(field.get(_SHARED)) is one] for one in (True, False))
    messages = {"type": "array", "items": {**record, "fields": own}}
    run = {**record, "name": f"{record['name']}Run", "fields": [*shared, {"name": _MESSAGES, "type": messages}]}
    return {"type": "array", "items": run}


def frame_fingerprint(record: dict[str, Any]) -> bytes:
    """The 8 bytes that stand for the frame schema of this record schema."""
    canonical = to_parsing_canonical_form(frame_schema(record))
    return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


class FrameCodec:
    """Encodes and decodes the frames of one message class."""

    def __init__(self, message: type[Message]) -> None:
        versions = schema_versions(message)
        self._message = message
        self._shared, self._own = _shared_and_own(versions[-1])
        self._shared_values = _values_getter(self._shared)
        self._row = _row_maker(self._own)
        self._messages = _messages_maker(tuple(message.__dataclass_fields__), self._shared, self._own)
        self._newest = fastavro.parse_schema(frame_schema(versions[-1]))
        self._prefix = MARKER + frame_fingerprint(versions[-1])
        # The newest version needs no resolution between writer's and reader's schema, which is what makes it fast.
        self._writers = {
            frame_fingerprint(version): fastavro.parse_schema(frame_schema(version)) for version in versions
        }

    def encode(self, messages: Sequence[Message]) -> bytes:
        runs = []
        for values, run in groupby(messages, self._shared_values):
            runs.append({**dict(zip(self._shared, values, strict=True)), _MESSAGES: list(map(self._row, run))})
        out = io.BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self._newest, runs)
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
            runs: Any = fastavro.schemaless_reader(body, writer, reader)
            if body.tell() != len(value):
                raise Undecodable(f"{len(value) - body.tell()} bytes are left behind the frame")
            return [message for run in runs for message in self._of_run(run, in_order=reader is None)]
        except (EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, MemoryError) as error:
            raise Undecodable(f"not a frame of {self._message.__name__}: {error}") from error

    def _of_run(self, run: dict[str, Any], *, in_order: bool) -> list[Any]:
        """`in_order`: written by this very version, so the fields come in the order of the schema."""
        rows = run.pop(_MESSAGES)
        if in_order:
            return self._messages(self._message, run.values(), rows)
        return [self._message(**run, **row) for row in rows]


def _shared_and_own(record: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the fields that stand once per run, and of those of each message."""
    shared = tuple(field["name"] for field in record["fields"] if field.get(_SHARED))
    return shared, tuple(field["name"] for field in record["fields"] if not field.get(_SHARED))


# The three functions below are written out for the fields of one class, as a person would write them by hand: naming the
# fields in a loop takes twice the time, and they run for every message at every hop.


def _values_getter(names: Sequence[str]) -> Callable[[Message], tuple[Any, ...]]:
    values = "".join(f"message.{name}, " for name in names)
    getter: Callable[[Message], tuple[Any, ...]] = eval(f"lambda message: ({values})")  # noqa: S307 - names of our classes
    return getter


def _row_maker(names: Sequence[str]) -> Callable[[Message], dict[str, Any]]:
    fields = ", ".join(f"{name!r}: message.{name}" for name in names)
    maker: Callable[[Message], dict[str, Any]] = eval(f"lambda message: {{{fields}}}")  # noqa: S307 - names of our classes
    return maker


def _messages_maker(
    names: Sequence[str], shared: Sequence[str], own: Sequence[str]
) -> Callable[[type[Message], Iterable[Any], Iterable[dict[str, Any]]], list[Any]]:
    """A function of a message class, the values of the shared fields, and the rows of a run."""
    of_run, of_row = ("".join(f"{name}, " for name in some) for some in (shared, own))
    each = f"for ({of_row}) in map(dict.values, rows)"
    body = f"[make({', '.join(names)}) for ({of_run}) in (tuple(run),) {each}]"
    maker: Callable[..., list[Any]] = eval(f"lambda make, run, rows: {body}")  # noqa: S307 - names of our classes
    return maker


_codecs: dict[Any, FrameCodec] = {}


def codec(message: Any) -> FrameCodec:
    """The codec of a message class; made once per process."""
    found = _codecs.get(message)
    if found is None:
        found = _codecs[message] = FrameCodec(message)
    return found
