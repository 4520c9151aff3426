"""Times on the wire: FSPIOP's DateTime in bodies and HTTP's Date in headers, to and from milliseconds since 1970 (UTC).

All arithmetic is on integers: a float of seconds loses milliseconds.
"""

import calendar
import re
from datetime import UTC, datetime, timedelta
from typing import Final

# API Definition §7.2.15 as the OpenAPI document writes it, with [0-9] for its \d, which here would let every script's
# digits in. It knows how long each month is and which years are leap years.
DATETIME_PATTERN: Final = (
    r"^(?:[1-9][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|"
    r"(?:0[13578]|1[02])-31)|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{3})(?:Z|[+-][01][0-9]:[0-5][0-9])$"
)
_DATETIME = re.compile(DATETIME_PATTERN[1:-1])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(
    rf"(?:{'|'.join(_WEEKDAYS)}), (\d{{2}}) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d{{2}}):(\d{{2}}):(\d{{2}})(?: GMT)?",
    re.ASCII,
)


class MalformedDateTime(ValueError):
    """The text is not an FSPIOP DateTime, or not an HTTP Date."""


def parse_datetime_ms(text: str) -> int:
    """Milliseconds since 1970 of an FSPIOP DateTime; raises MalformedDateTime."""
    if _DATETIME.fullmatch(text) is None:
        raise MalformedDateTime(f"{text[:40]!r} is not an FSPIOP DateTime")
    numbers = [int(text[first:last]) for first, last in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]
    milliseconds = calendar.timegm((*numbers, 0, 0, 0)) * 1000 + int(text[20:23])
    if text.endswith("Z"):
        return milliseconds
    offset_ms = (int(text[24:26]) * 60 + int(text[27:29])) * 60_000
    return milliseconds - offset_ms if text[23] == "+" else milliseconds + offset_ms


def format_datetime(milliseconds: int) -> str:
    """The FSPIOP DateTime of a moment, in UTC; raises OverflowError past the year 9999."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def parse_http_date_ms(text: str) -> int:
    """Milliseconds since 1970 of a Date header (RFC 7231; Mojaloop lets "GMT" be missing); raises MalformedDateTime.

    The name of the weekday is not compared with the date: nothing depends on it.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise MalformedDateTime(f"{text[:40]!r} is not an HTTP Date")
    day, month, year, hour, minute, second = match.groups()
    try:
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError as error:
        raise MalformedDateTime(f"{text!r} is no moment of the calendar") from error
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def format_http_date(milliseconds: int) -> str:
    """The Date header of a moment."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return (
        f"{_WEEKDAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment:%H:%M:%S} GMT"
    )
