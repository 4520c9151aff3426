"""Money as an exact integer: a count of 1/10,000 of the currency's unit.

An FSPIOP Amount has at most 18 digits before the point and 4 behind it, so the count needs 22 digits: a Python int
holds it, NUMERIC(22,4) stores it, and records and bodies carry the FSPIOP string. No float ever touches an amount (D26).
"""

import re
from decimal import Decimal

UNITS = 10_000
INTEGER_DIGITS_MAX = 18
DECIMALS_MAX = 4

# FSPIOP API Definition §7.2.13: no sign, no leading zero, no trailing zero behind the point.
AMOUNT_PATTERN = r"^([0]|([1-9][0-9]{0,17}))([.][0-9]{0,3}[1-9])?$"
_AMOUNT = re.compile(r"([0]|(?:[1-9][0-9]{0,17}))(?:[.]([0-9]{0,3}[1-9]))?")


class MalformedAmount(ValueError):
    """The text is not an FSPIOP Amount."""


def parse_amount(text: str) -> int:
    """The count of 1/10,000 that an FSPIOP Amount stands for; raises MalformedAmount."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise MalformedAmount(f"{text[:40]!r} is not an FSPIOP Amount")
    whole, decimals = match.groups(default="")
    return int(whole) * UNITS + int(decimals.ljust(DECIMALS_MAX, "0"))


def format_amount(units: int) -> str:
    """The shortest decimal text of a count, FSPIOP's own form for a count that is not negative."""
    sign = "-" if units < 0 else ""
    whole, rest = divmod(abs(units), UNITS)
    return f"{sign}{whole}.{rest:04d}".rstrip("0").rstrip(".")


def from_numeric(value: Decimal) -> int:
    """The count behind a NUMERIC(22,4) as the database driver returns it."""
    return int(value.scaleb(DECIMALS_MAX))
