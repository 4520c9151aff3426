"""The bodies of /bulkTransfers and /transfers with the constraints of the OpenAPI 1.1 document (reference §3).

Plain dictionaries with types: what was parsed is what is handed on, unknown fields included, because the document does
not forbid them. Every pattern is anchored and written with explicit character classes, so that Rust's regular expressions
(pydantic checks with them) and Python's agree. A string may not hold U+0000: PostgreSQL has no room for it.
"""

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, NotRequired

from pydantic import Field, StringConstraints

# pydantic reads the annotations of this one on Python 3.11, and not those of typing's.
from typing_extensions import TypedDict

from domain.money import AMOUNT_PATTERN
from schemas.fspiop.currencies import CURRENCY_CODES
from schemas.fspiop.datetimes import DATETIME_PATTERN

CORRELATION_ID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
ILP_PACKET_PATTERN: Final = r"^[A-Za-z0-9_-]+={0,2}$"
ILP_CONDITION_PATTERN: Final = r"^[A-Za-z0-9_-]{43}$"
ERROR_CODE_PATTERN: Final = r"^[1-9][0-9]{3}$"
TEXT_PATTERN: Final = r"^[^\x00]*$"

FSP_ID_LENGTH_MAX: Final = 32
ILP_PACKET_LENGTH_MAX: Final = 32_768
EXTENSIONS_MAX: Final = 16

# What a pattern's refusal calls the type.
TYPE_OF_PATTERN: Final = {
    CORRELATION_ID_PATTERN: "a CorrelationId",
    AMOUNT_PATTERN: "an Amount",
    DATETIME_PATTERN: "a DateTime",
    ILP_PACKET_PATTERN: "an IlpPacket",
    ILP_CONDITION_PATTERN: "43 base64url characters",
    ERROR_CODE_PATTERN: "an ErrorCode",
    TEXT_PATTERN: "text without U+0000",
}

_CORRELATION_ID = re.compile(CORRELATION_ID_PATTERN[1:-1])

CorrelationId = Annotated[str, StringConstraints(pattern=CORRELATION_ID_PATTERN)]
FspId = Annotated[str, StringConstraints(min_length=1, max_length=FSP_ID_LENGTH_MAX, pattern=TEXT_PATTERN)]
Amount = Annotated[str, StringConstraints(pattern=AMOUNT_PATTERN)]
DateTime = Annotated[str, StringConstraints(pattern=DATETIME_PATTERN)]
IlpPacket = Annotated[
    str, StringConstraints(min_length=1, max_length=ILP_PACKET_LENGTH_MAX, pattern=ILP_PACKET_PATTERN)
]
# A condition and a fulfilment are both 32 bytes in base64url without padding.
IlpCondition = Annotated[str, StringConstraints(pattern=ILP_CONDITION_PATTERN)]
ErrorCode = Annotated[str, StringConstraints(pattern=ERROR_CODE_PATTERN)]
ErrorDescription = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
ExtensionKey = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=TEXT_PATTERN)]
ExtensionValue = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
BulkTransferState = Literal["RECEIVED", "PENDING", "ACCEPTED", "PROCESSING", "COMPLETED", "REJECTED"]
TransferState = Literal["RECEIVED", "RESERVED", "COMMITTED", "ABORTED"]
if TYPE_CHECKING:
    Currency = str
else:
    # One literal of all the codes is a single look-up; to the type checker a code is a string like any other.
    Currency = Literal[CURRENCY_CODES]


class Extension(TypedDict):
    key: ExtensionKey
    value: ExtensionValue


class ExtensionList(TypedDict):
    extension: Annotated[list[Extension], Field(min_length=1, max_length=EXTENSIONS_MAX, fail_fast=True)]


class ErrorInformation(TypedDict):
    errorCode: ErrorCode
    errorDescription: ErrorDescription
    extensionList: NotRequired[ExtensionList]


class Money(TypedDict):
    currency: Currency
    amount: Amount


class IndividualTransfer(TypedDict):
    transferId: CorrelationId
    transferAmount: Money
    ilpPacket: IlpPacket
    condition: IlpCondition
    extensionList: NotRequired[ExtensionList]


class BulkTransfersPostRequest(TypedDict):
    """POST /bulkTransfers. How many items there may be is a setting, checked before the rest (`bodies`)."""

    bulkTransferId: CorrelationId
    bulkQuoteId: CorrelationId
    payerFsp: FspId
    payeeFsp: FspId
    individualTransfers: Annotated[list[IndividualTransfer], Field(min_length=1, fail_fast=True)]
    expiration: DateTime
    extensionList: NotRequired[ExtensionList]


class IndividualTransferResult(TypedDict):
    """What became of one item: a fulfilment or an errorInformation, never both."""

    transferId: CorrelationId
    fulfilment: NotRequired[IlpCondition]
    errorInformation: NotRequired[ErrorInformation]
    extensionList: NotRequired[ExtensionList]


class BulkTransfersIDPutResponse(TypedDict):
    """PUT /bulkTransfers/{ID}. An absent list of results and an empty one are both legal (D23)."""

    bulkTransferState: BulkTransferState
    completedTimestamp: NotRequired[DateTime]
    individualTransferResults: NotRequired[Annotated[list[IndividualTransferResult], Field(fail_fast=True)]]
    extensionList: NotRequired[ExtensionList]


class TransfersPostRequest(TypedDict):
    """POST /transfers."""

    transferId: CorrelationId
    payeeFsp: FspId
    payerFsp: FspId
    amount: Money
    ilpPacket: IlpPacket
    condition: IlpCondition
    expiration: DateTime
    extensionList: NotRequired[ExtensionList]


class TransfersIDPutResponse(TypedDict):
    """PUT /transfers/{ID}. That a COMMITTED or RESERVED needs a fulfilment is for the handler to judge (§11.24)."""

    transferState: TransferState
    fulfilment: NotRequired[IlpCondition]
    completedTimestamp: NotRequired[DateTime]
    extensionList: NotRequired[ExtensionList]


class ErrorInformationObject(TypedDict):
    """PUT /bulkTransfers/{ID}/error and PUT /transfers/{ID}/error, and the body of every error answer."""

    errorInformation: ErrorInformation


def is_correlation_id(text: str) -> bool:
    return _CORRELATION_ID.fullmatch(text) is not None
