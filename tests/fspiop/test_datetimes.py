"""Times on the wire and milliseconds say the same moment, and only moments of the calendar are times."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime as format_rfc_date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fspiop.datetimes import (
    MalformedDateTime,
    format_datetime,
    format_http_date,
    parse_datetime_ms,
    parse_http_date_ms,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1000, 1, 3), datetime(9999, 12, 29)).map(  # noqa: DTZ001  # the strategy wants them so
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
OFFSETS = st.integers(-(19 * 60 + 59), 19 * 60 + 59).map(lambda minutes: timedelta(minutes=minutes))


@given(MOMENTS, OFFSETS)
def test_a_datetime_is_its_moment_in_every_offset(moment: datetime, offset: timedelta) -> None:
    aware = moment.replace(tzinfo=timezone(offset))
    assert parse_datetime_ms(aware.isoformat(timespec="milliseconds")) == (aware - EPOCH) // timedelta(milliseconds=1)


@given(st.integers(-30_000_000_000_000, 253_402_300_799_999))
def test_what_is_formatted_is_parsed_as_the_same_moment(milliseconds: int) -> None:
    assert parse_datetime_ms(format_datetime(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00.000Z",
        "2100-02-29T00:00:00.000Z",
        "2026-04-31T00:00:00.000Z",
        "2026-13-01T00:00:00.000Z",
        "2026-01-01T24:00:00.000Z",
        "2026-01-01T00:00:60.000Z",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.000",
        "2026-01-01T00:00:00.000+20:00",
        "2026-01-01 00:00:00.000Z",
        "2026-01-01T00:00:00.000Z\n",
        "202\u0666-01-01T00:00:00.000Z",
        "0999-01-01T00:00:00.000Z",
        "",
    ],
)
def test_what_is_no_moment_of_the_calendar_is_malformed(text: str) -> None:
    with pytest.raises(MalformedDateTime):
        parse_datetime_ms(text)


def test_the_last_moments_of_the_year_9999_have_milliseconds_too() -> None:
    assert parse_datetime_ms("9999-12-31T23:59:59.999-19:59") == 253_402_300_799_999 + (19 * 60 + 59) * 60_000


@given(MOMENTS)
def test_an_http_date_is_the_one_of_the_standard_library(moment: datetime) -> None:
    second = moment.replace(microsecond=0, tzinfo=UTC)
    milliseconds = (second - EPOCH) // timedelta(milliseconds=1)
    text = format_rfc_date(second, usegmt=True)
    assert format_http_date(milliseconds) == text
    assert parse_http_date_ms(text) == milliseconds
