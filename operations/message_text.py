"""Messages as people read them: a record's value decoded into plain values, or its bytes in hexadecimal, bounded."""

from dataclasses import asdict, dataclass
from typing import Any

from domain.identifiers import ID_BYTES, id_text
from schemas.codec import Undecodable, UnknownSchema, codec
from schemas.messages import Message

# Of bytes that nobody can decode so many are shown; the rest is counted.
_HEX_BYTES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class DecodedValue:
    """The messages of a record, or why there are none, and then its bytes."""

    messages: tuple[dict[str, Any], ...]
    undecodable: str | None = None
    value_hex: str | None = None
    value_bytes: int = 0

    def ids(self, name: str) -> list[str]:
        """The different values of an id field in the order of the messages."""
        return list(dict.fromkeys(str(one[name]) for one in self.messages if one.get(name)))


def decode_value(message: type[Message], value: bytes) -> DecodedValue:
    """The messages of a record of a topic whose messages are of this class."""
    try:
        messages = codec(message).decode(value)
    except (Undecodable, UnknownSchema) as reason:
        return DecodedValue((), str(reason), value[:_HEX_BYTES_MAX].hex(), len(value))
    return DecodedValue(tuple(plain(one) for one in messages), value_bytes=len(value))


def plain(message: Message) -> dict[str, Any]:
    """The fields of a message; ids in the form that FSPIOP knows, other bytes in hexadecimal."""
    return {name: _plain(value) for name, value in asdict(message).items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    return id_text(value) if len(value) == ID_BYTES else value.hex()
