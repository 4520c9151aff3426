"""An error as FSPIOP writes it, and the refusal of a request, which is answered at once with such an error.

The body is `{"errorInformation": {"errorCode", "errorDescription", "extensionList"?}}`: no field is ever null, and the
extensionList is absent when it would be empty (reference §11.12).
"""

from collections.abc import Sequence
from typing import Final

import orjson

from domain.fspiop_errors import ErrorCode, FspiopError, fspiop_error
from schemas.fspiop.types import ErrorInformation, ErrorInformationObject

# What the OpenAPI document gives for the body of every error answer.
ERROR_CONTENT_TYPE: Final = "application/json"

_HTTP_STATUS = {code.code: code.http_status for code in ErrorCode}
_HTTP_STATUS_OF_FAMILY = {"1": 503, "2": 500}


class Refusal(Exception):
    """A request is refused: what the sender reads, and the HTTP status it reads it with.

    The status is the code's own unless it is given (405 has no code of its own). `close` ends the connection after the
    answer, for a sender whose request is not going to be read to its end. `retry_after_s` is when a sender that gets 503
    should come again; a 503 without it says one second. `reason` is
    one of a few words of our own, for those who count refusals.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str = "",
        *,
        http_status: int | None = None,
        extensions: Sequence[tuple[str, str]] = (),
        close: bool = False,
        retry_after_s: int = 1,
        reason: str = "",
    ) -> None:
        self.error = fspiop_error(code, detail)
        self.http_status = code.http_status if http_status is None else http_status
        self.extensions = tuple(extensions)
        self.close = close
        self.retry_after_s = retry_after_s
        self.reason = reason
        super().__init__(f"{self.error.code} {self.error.description}")

    def body(self) -> bytes:
        return error_body(self.error, self.extensions)


def error_information(error: FspiopError, extensions: Sequence[tuple[str, str]] = ()) -> ErrorInformation:
    information: ErrorInformation = {"errorCode": error.code, "errorDescription": error.description}
    if extensions:
        information["extensionList"] = {"extension": [{"key": key, "value": value} for key, value in extensions]}
    return information


def error_body(error: FspiopError, extensions: Sequence[tuple[str, str]] = ()) -> bytes:
    """The bytes of an error answer or of a PUT …/error."""
    body: ErrorInformationObject = {"errorInformation": error_information(error, extensions)}
    return orjson.dumps(body)


def http_status(error_code: str) -> int:
    """The HTTP status for any four-digit code: one that is not known counts as the generic one of its family."""
    return _HTTP_STATUS.get(error_code) or _HTTP_STATUS_OF_FAMILY.get(error_code[:1], 400)
