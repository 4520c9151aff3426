"""The bodies of admin requests: read once, each field asked for by name, each fault named by its path.

Numbers are read as Decimal, so that 18 digits before and 4 behind the point arrive as they were sent (D26). Amounts and
limits may be numbers or strings, with trailing zeros (reference §11.7). Fields that nobody asks for are ignored.

    missing             3102
    of another type     3101, as is what is not JSON
    of another value    3100
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

from domain.fspiop_errors import ErrorCode
from domain.money import DECIMALS_MAX, INTEGER_DIGITS_MAX
from schemas.fspiop.datetimes import MalformedDateTime, parse_datetime_ms
from schemas.fspiop.errors import Refusal

# A certificate of an RSA key of 8,192 bits takes half of it.
KEY_LENGTH_MAX = 16_384
EXTENSIONS_MAX = 16
EXTENSION_KEY_LENGTH_MAX = 32
EXTENSION_VALUE_LENGTH_MAX = 128

_NUMBER = re.compile(r"-?[0-9]{1,64}(?:\.[0-9]{1,64})?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
# PostgreSQL has no room for U+0000, UTF-8 none for half a surrogate pair, and a log none for what moves its cursor.
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def read_body(raw: bytes) -> "Fields":
    """The object that a body holds; refuses with 3101 what is not a JSON object in UTF-8."""
    try:
        # Integers too: int() has a limit of digits of its own, and Decimal has none that matters here.
        body = json.loads(raw.decode(), parse_int=Decimal, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError):
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, "the body must be a JSON object")
    return Fields(body)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def uuid_of(value: str, path: str) -> UUID:
    """A UUID in its usual form of 36 characters; refuses with 3101."""
    if _UUID.fullmatch(value) is None:
        raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"{path} must be a UUID")
    return UUID(value)


def units_of(number: Decimal, path: str) -> int:
    """The count of 1/10,000 of a number; refuses with 3100 what has more digits than an amount."""
    if not number:
        return 0
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "infinities and NaN are no JSON"
    if number.adjusted() >= INTEGER_DIGITS_MAX:
        raise Refusal(ErrorCode.VALIDATION_ERROR, f"{path} has more than {INTEGER_DIGITS_MAX} digits before the point")
    significant = "".join(map(str, digits)).rstrip("0")
    shift = exponent + len(digits) - len(significant) + DECIMALS_MAX
    if shift < 0:
        raise Refusal(ErrorCode.VALIDATION_ERROR, f"{path} has more than {DECIMALS_MAX} digits behind the point")
    units = int(significant + "0" * shift)
    return -units if sign else units


class Fields:
    """An object of a body; `path` is where it stands, for the refusals."""

    def __init__(self, fields: dict[str, Any], path: str = "") -> None:
        self._fields = fields
        self._path = path

    def path(self, name: str) -> str:
        return f"{self._path}{name}"

    def has(self, name: str) -> bool:
        """Whether the field is there; null counts as absent."""
        return self._fields.get(name) is not None

    def value(self, name: str) -> Any:
        """Whatever the field holds; refuses with 3102 when it is missing."""
        if not self.has(name):
            raise Refusal(ErrorCode.MISSING_ELEMENT, f"{self.path(name)} is missing")
        return self._fields[name]

    def _wrong_type(self, name: str, wanted: str) -> Refusal:
        return Refusal(ErrorCode.MALFORMED_SYNTAX, f"{self.path(name)} must be {wanted}")

    def text(self, name: str, *, length_max: int, length_min: int = 1) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong_type(name, "a string")
        if _UNFIT.search(value):
            raise self._wrong_type(name, "text without control characters")
        if not length_min <= len(value) <= length_max:
            raise Refusal(
                ErrorCode.VALIDATION_ERROR, f"{self.path(name)} must have {length_min} to {length_max} characters"
            )
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong_type(name, "a string")
        if value not in choices:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"{self.path(name)} must be one of {', '.join(choices)}")
        return value

    def boolean(self, name: str) -> bool:
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._wrong_type(name, "true or false")
        return value

    def uuid(self, name: str) -> UUID:
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong_type(name, "a UUID")
        return uuid_of(value, self.path(name))

    def number(self, name: str) -> Decimal:
        value = self.value(name)
        if isinstance(value, Decimal):
            return value
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return Decimal(value)
        raise self._wrong_type(name, "a number")

    def units(self, name: str) -> int:
        """An amount of money, as a count of 1/10,000."""
        return units_of(self.number(name), self.path(name))

    def percentage(self, name: str) -> Decimal:
        """0 to 100, with two decimals at most."""
        hundredths, rest = divmod(self.units(name), 100)
        if rest or not 0 <= hundredths <= 100_00:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"{self.path(name)} must be 0 to 100, with two decimals at most")
        return Decimal(hundredths).scaleb(-2)

    def instant(self, name: str) -> datetime:
        """A moment as FSPIOP writes it."""
        try:
            return datetime.fromtimestamp(parse_datetime_ms(self.text(name, length_max=64)) / 1000, UTC)
        except MalformedDateTime:
            raise self._wrong_type(name, "like 2026-11-21T10:15:30.000Z") from None

    def key(self, name: str) -> str | dict[str, Any]:
        """A public key: text in PEM, or the object of a JWK."""
        value = self.value(name)
        if isinstance(value, dict):
            return value
        return self.text(name, length_max=KEY_LENGTH_MAX)

    def object(self, name: str) -> "Fields":
        value = self.value(name)
        if not isinstance(value, dict):
            raise self._wrong_type(name, "an object")
        return Fields(value, f"{self.path(name)}.")

    def extension_list(self, name: str) -> list[tuple[str, str]]:
        """The pairs of an ExtensionList; [] when there is none."""
        if not self.has(name):
            return []
        extensions = self.object(name)
        entries = extensions.value("extension")
        path = extensions.path("extension")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Refusal(ErrorCode.MALFORMED_SYNTAX, f"{path} must be an array of objects")
        if not entries:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"{path} must not be empty")
        if len(entries) > EXTENSIONS_MAX:
            raise Refusal(ErrorCode.TOO_MANY_ELEMENTS, f"{path} must have at most {EXTENSIONS_MAX} elements")
        pairs = [Fields(entry, f"{path}[{number}].") for number, entry in enumerate(entries)]
        return [
            (
                pair.text("key", length_max=EXTENSION_KEY_LENGTH_MAX),
                pair.text("value", length_max=EXTENSION_VALUE_LENGTH_MAX),
            )
            for pair in pairs
        ]
