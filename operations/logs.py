"""Log lines of a process, on its standard output: as text for people, or as JSON with a field for each thing known.

    time, level, logger, process, message        always
    handler, topic, partition, offset            where a batch or a record is meant
    bulk_transfer_id, transfer_id                whose it is
    delivery_id, fsp                             a callback
    exception                                    a traceback, where there is one

Payloads are never written: no body, amount, ilpPacket, condition, fulfilment, signature or secret. The calls pass none; what
a database says about a row that it refuses (DETAIL), and the statement with its parameters that a library would add, are cut
out of every traceback here, because they may quote one.
"""

import copy
import logging
import re
import sys
import time
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

# What log lines may be about; `extra` of a call gives them, and any other name is a mistake that a test finds.
EXTRA_FIELDS = ("handler", "topic", "partition", "offset", "bulk_transfer_id", "transfer_id", "delivery_id", "fsp")

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JSON = ("asctime", "levelname", "name", "message")
_JSON_FIELDS = frozenset({"time", "level", "logger", "process", "message", "exception", *EXTRA_FIELDS})
# Of their DEBUG and INFO lines one per request is left, which says nothing that our own rows do not.
QUIET_LIBRARIES = ("httpx", "httpcore", "urllib3", "asyncio", "opentelemetry")
# A quoted row or a parameter may itself contain line ends: all goes until a line that a traceback goes on with.
_GOES_ON = r"Traceback |The above exception|During handling| +File |\(Background on this error"
_QUOTING = re.compile(rf"^(?:DETAIL:|CONTEXT:|\[SQL:|\[parameters:)(?:(?!^(?:{_GOES_ON})).*\n?)*", re.MULTILINE)


def configure_logs(process: str, level: str, log_format: Literal["text", "json"]) -> None:
    """Everything that this process logs goes to standard output in this form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler])
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def without_quotes(text: str) -> str:
    """A traceback without the rows and parameters that the database and its library quote in it."""
    return _QUOTING.sub("(what it quotes is left out)\n", text).rstrip("\n")


class TextLines(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        # A traceback that another formatter has left in the record is not ours.
        record = copy.copy(record)
        record.exc_text = None
        return super().format(record)

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's own name
        return without_quotes(super().formatException(ei))  # type: ignore[arg-type]  # passed on as it came


class JsonLines(JsonFormatter):
    """A JSON object per line."""

    # In UTC, whatever the machine's zone.
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, process: str) -> None:
        super().__init__(
            _JSON,
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"},
            static_fields={"process": process},
        )

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        """Without what libraries add to their own lines."""
        return {name: value for name, value in log_data.items() if name in _JSON_FIELDS}

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's own name
        text = super().formatException(ei)
        return without_quotes("\n".join(text) if isinstance(text, list) else text)
