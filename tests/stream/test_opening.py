"""The stream URL chooses the stream, and a wrong one is refused with what would be right."""

import pytest
from sqlalchemy import Engine

from stream.kafka import KafkaStream
from stream.opening import open_stream
from stream.table import TableStream


def test_the_url_chooses_the_stream(engine: Engine) -> None:
    assert isinstance(open_stream("table:", engine), TableStream)
    for url in ("kafka://127.0.0.1:9092", "kafka://one:9092,two:9092", "kafka://one:9092,two:9092/staging-2"):
        assert isinstance(open_stream(url, engine), KafkaStream)


@pytest.mark.parametrize(
    "url",
    ["", "table", "table://", "kafka:", "kafka://", "kafka://host", "kafka://a:1,", "kafka://a:1/b/c", "http://a:1"],
)
def test_another_url_is_refused(engine: Engine, url: str) -> None:
    with pytest.raises(ValueError, match="must be table: or kafka://"):
        open_stream(url, engine)


def test_a_password_in_the_url_is_refused_and_not_repeated(engine: Engine) -> None:
    with pytest.raises(ValueError, match="carries no user and no password") as raised:
        open_stream("kafka://switch:hush-hush@one:9092", engine)
    assert "hush-hush" not in str(raised.value)
