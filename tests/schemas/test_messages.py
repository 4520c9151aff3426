"""The contracts hold: classes equal their newest schema, every version stays readable, bytes stay what they were."""

import dataclasses
import json
import types
from pathlib import Path
from typing import Any

import pytest
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
)
from avro.schema import Schema, parse
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    MARKER,
    FrameCodec,
    Undecodable,
    UnknownSchema,
    codec,
    frame_schema,
    record_name,
    schema_versions,
)
from schemas.messages import BulkProcessing, Message
from schemas.topics import CATALOGUE

MESSAGES = Message.__args__
GOLDEN = Path(__file__).parents[1] / "golden"
_AVRO_OF = {str: {"string"}, int: {"long", "int"}, bytes: {"bytes", "fixed"}}


def example(message: Any) -> Any:
    """One message of a class, with a value of its own in every field."""
    values: dict[str, Any] = {}
    for number, field in enumerate(dataclasses.fields(message), start=1):
        schema = _field_schema(message, field.name)
        if schema["type"] == "fixed":
            values[field.name] = bytes([number]) * schema["size"]
        elif schema["type"] == "bytes":
            values[field.name] = bytes(range(number))
        elif schema["type"] in {"long", "int"}:
            values[field.name] = number * 1_000_003
        else:
            values[field.name] = f"{field.name} é {number}"
    return message(**values)


def _field_schema(message: Any, name: str) -> dict[str, Any]:
    """The schema of a field without its null, named types looked up."""
    record = schema_versions(message)[-1]
    named: dict[str, Any] = {}
    for field in record["fields"]:
        type_ = field["type"]
        if isinstance(type_, list):
            type_ = next(one for one in type_ if one != "null")
        if isinstance(type_, dict):
            named[type_["name"]] = type_
        elif type_ in named:
            type_ = named[type_]
        if field["name"] == name:
            return type_ if isinstance(type_, dict) else {"type": type_}
    raise AssertionError(f"{record['name']} has no field {name}")


@pytest.mark.parametrize("message", MESSAGES, ids=record_name)
def test_the_class_equals_its_newest_schema_field_by_field(message: Any) -> None:
    record = schema_versions(message)[-1]
    assert record["name"] == message.__name__
    assert [field["name"] for field in record["fields"]] == [field.name for field in dataclasses.fields(message)]
    for field, schema in zip(dataclasses.fields(message), record["fields"], strict=True):
        nullable = isinstance(schema["type"], list)
        kinds = field.type.__args__ if isinstance(field.type, types.UnionType) else (field.type,)
        assert nullable is (type(None) in kinds), field.name
        kind = next(one for one in kinds if one is not type(None))
        assert _field_schema(message, field.name)["type"] in _AVRO_OF[kind], field.name


@pytest.mark.parametrize("message", MESSAGES, ids=record_name)
def test_golden_bytes_of_every_version_decode_for_ever(message: Any) -> None:
    """The files are written once per version and never again: tests/golden/<record>.vN.bin."""
    versions = schema_versions(message)
    for number in range(1, len(versions) + 1):
        golden = GOLDEN / f"{record_name(message)}.v{number}.bin"
        [decoded] = codec(message).decode(golden.read_bytes())
        if number == len(versions):
            assert decoded == example(message)
            assert codec(message).encode([example(message)]) == golden.read_bytes(), "the bytes on the topic changed"


def _compatibility(reader: Schema, writer: Schema) -> SchemaCompatibilityResult:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # the library leaves it untyped
    return checker.get_compatibility(reader=reader, writer=writer)


@pytest.mark.parametrize("message", MESSAGES, ids=record_name)
def test_every_version_is_readable_as_the_newest(message: Any) -> None:
    """The frames, not only the records: a field that moved into or out of what a run shares would not be found again."""
    versions = [parse(json.dumps(frame_schema(version))) for version in schema_versions(message)]
    for writer in versions:
        found = _compatibility(versions[-1], writer)
        assert found.compatibility is SchemaCompatibilityType.compatible, found.messages


def test_the_compatibility_check_can_fail() -> None:
    record = schema_versions(BulkProcessing)[-1]
    more = {**record, "fields": [*record["fields"], {"name": "without_default", "type": "string"}]}
    moved = {**record, "fields": [field | {"shared": field["name"] != "action"} for field in record["fields"]]}
    for newer in (more, moved):
        found = _compatibility(parse(json.dumps(frame_schema(newer))), parse(json.dumps(frame_schema(record))))
        assert found.compatibility is SchemaCompatibilityType.incompatible


def test_an_older_version_is_read_as_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is a version ahead of its writer fills the new field with its default."""
    record = schema_versions(BulkProcessing)[-1]
    older = {**record, "fields": [f for f in record["fields"] if f["name"] != "error_description"]}
    newest = record
    monkeypatch.setattr("schemas.codec.schema_versions", lambda _: [older])
    old_codec = FrameCodec(BulkProcessing)
    written = old_codec.encode([example(BulkProcessing)])
    monkeypatch.setattr("schemas.codec.schema_versions", lambda _: [older, newest])
    [read] = FrameCodec(BulkProcessing).decode(written)
    assert read == dataclasses.replace(example(BulkProcessing), error_description=None)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["5100", None]), st.integers(0, 3))))
def test_messages_come_out_in_the_order_in_which_they_went_in(said: list[tuple[str, str | None, int]]) -> None:
    """Runs are of neighbours only, so two messages about one transfer never change places."""
    messages = [
        dataclasses.replace(example(BulkProcessing), action=action, error_code=error_code, transfer_key=key)
        for action, error_code, key in said
    ]
    assert codec(BulkProcessing).decode(codec(BulkProcessing).encode(messages)) == messages


def test_what_neighbours_share_stands_once() -> None:
    frame = codec(BulkProcessing).encode([example(BulkProcessing)] * 100)
    assert frame.count(example(BulkProcessing).status.encode()) == 1
    assert frame.count(example(BulkProcessing).transfer_id) == 100


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(value: bytes) -> None:
    for given_ in (value, codec(BulkProcessing).encode([])[:10] + value):
        try:
            codec(BulkProcessing).decode(given_)
        except (Undecodable, UnknownSchema):
            continue


def test_a_cut_frame_and_a_foreign_one_are_told_apart() -> None:
    frame = codec(BulkProcessing).encode([example(BulkProcessing)] * 3)
    for length in range(len(frame)):
        with pytest.raises(Undecodable):
            codec(BulkProcessing).decode(frame[:length])
    with pytest.raises(Undecodable):
        codec(BulkProcessing).decode(frame + b"\x00")
    with pytest.raises(UnknownSchema, match="0102030405060708"):
        codec(BulkProcessing).decode(MARKER + bytes(range(1, 9)) + b"\x00")


def test_the_catalogue_names_every_topic_with_its_writers_and_reader() -> None:
    from domain.combinations import EXTENSIONS, SEED_COMBINATIONS, SINGLE_COMBINATIONS
    from handlers.host import HANDLER_NAMES

    for combination in (*SEED_COMBINATIONS, *EXTENSIONS, *SINGLE_COMBINATIONS):
        # #15 and #16 cannot arise, so fulfil does not write to that topic.
        if combination.number not in {15, 16}:
            assert combination.source in CATALOGUE[combination.topic].producers, combination
    readers = {topic.consumer for topic in CATALOGUE.values()} - {"operators"}
    # The timeout reads the clock, which is no topic of the stream.
    assert readers == set(HANDLER_NAMES) - {"timeout"}
    for topic in CATALOGUE.values():
        assert topic.name.endswith("-dead-letter") or f"{topic.name}-dead-letter" in CATALOGUE
        assert topic.partitions >= 1
        assert topic.retention_ms > 0
