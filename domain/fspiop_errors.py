"""FSPIOP error codes (API Definition §7.6, BULK-137), their texts, and the one form an error takes on its way.

The text of an error is "<name of the code> - <detail>", cut to the 128 characters that ErrorDescription allows. Some texts
are compared to the letter by existing clients (reference §11.16); they come from the functions at the end of this file.
"""

from dataclasses import dataclass
from enum import Enum

DESCRIPTION_LENGTH_MAX = 128


class ErrorCode(Enum):
    """(code, name, HTTP status where the error is answered at once)."""

    COMMUNICATION_ERROR = ("1000", "Communication error", 503)
    DESTINATION_COMMUNICATION_ERROR = ("1001", "Destination communication error", 503)
    SERVER_ERROR = ("2000", "Generic server error", 500)
    INTERNAL_SERVER_ERROR = ("2001", "Internal server error", 500)
    NOT_IMPLEMENTED = ("2002", "Not implemented", 501)
    SERVICE_UNAVAILABLE = ("2003", "Service currently unavailable", 503)
    SERVER_TIMED_OUT = ("2004", "Server timed out", 500)
    SERVER_BUSY = ("2005", "Server busy", 500)
    CLIENT_ERROR = ("3000", "Generic client error", 400)
    UNACCEPTABLE_VERSION = ("3001", "Unacceptable version requested", 406)
    UNKNOWN_URI = ("3002", "Unknown URI", 404)
    ADD_PARTY_INFO_ERROR = ("3003", "Add Party information error", 400)
    VALIDATION_ERROR = ("3100", "Generic validation error", 400)
    MALFORMED_SYNTAX = ("3101", "Malformed syntax", 400)
    MISSING_ELEMENT = ("3102", "Missing mandatory element", 400)
    TOO_MANY_ELEMENTS = ("3103", "Too many elements", 400)
    TOO_LARGE_PAYLOAD = ("3104", "Too large payload", 400)
    INVALID_SIGNATURE = ("3105", "Invalid signature", 400)
    MODIFIED_REQUEST = ("3106", "Modified request", 400)
    MISSING_EXTENSION = ("3107", "Missing mandatory extension parameter", 400)
    ID_NOT_FOUND = ("3200", "Generic ID not found", 400)
    DESTINATION_FSP_ERROR = ("3201", "Destination FSP Error", 400)
    PAYER_FSP_NOT_FOUND = ("3202", "Payer FSP ID not found", 400)
    PAYEE_FSP_NOT_FOUND = ("3203", "Payee FSP ID not found", 400)
    TRANSFER_NOT_FOUND = ("3208", "Transfer ID not found", 400)
    BULK_TRANSFER_NOT_FOUND = ("3210", "Bulk transfer ID not found", 400)
    TRANSFER_EXPIRED = ("3303", "Transfer expired", 400)
    PAYER_INSUFFICIENT_LIQUIDITY = ("4001", "Payer FSP insufficient liquidity", 400)
    PAYER_LIMIT_ERROR = ("4200", "Payer limit error", 400)
    PAYEE_ERROR = ("5000", "Generic Payee error", 400)
    PAYEE_REJECTION = ("5100", "Payee rejection", 400)

    def __init__(self, code: str, text: str, http_status: int) -> None:
        self.code = code
        self.text = text
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class FspiopError:
    """What errorInformation says: a code of four digits and a description of 1 to 128 characters."""

    code: str
    description: str


def fspiop_error(code: ErrorCode, detail: str = "") -> FspiopError:
    """The error with its name before the detail, cut to the length that FSPIOP allows."""
    text = f"{code.text} - {detail}" if detail else code.text
    return FspiopError(code.code, text[:DESCRIPTION_LENGTH_MAX])


# The texts that clients compare to the letter (reference §11.16, D14: each error is a value of its own, never shared).
MODIFIED_REQUEST = fspiop_error(ErrorCode.MODIFIED_REQUEST)
TRANSFER_EXPIRED = fspiop_error(ErrorCode.TRANSFER_EXPIRED)
BULK_NOT_FOUND = fspiop_error(
    ErrorCode.BULK_TRANSFER_NOT_FOUND, "Provided Bulk Transfer ID was not found on the server."
)
TRANSFER_NOT_FOUND = fspiop_error(ErrorCode.TRANSFER_NOT_FOUND, "Provided Transfer ID was not found on the server.")
NOT_A_PARTY = fspiop_error(ErrorCode.CLIENT_ERROR)
SOURCE_IS_NOT_PAYER = fspiop_error(ErrorCode.VALIDATION_ERROR, "FSPIOP-Source header should match Payer FSP")
INVALID_FULFILMENT = fspiop_error(ErrorCode.VALIDATION_ERROR, "invalid fulfilment")


def source_inactive(name: str) -> FspiopError:
    """To a sender that takes no part any more, whatever it asks for: it learns nothing of what it asked about."""
    return fspiop_error(ErrorCode.VALIDATION_ERROR, f"Participant {name} is inactive")


def payee_not_found(name: str) -> FspiopError:
    return fspiop_error(ErrorCode.PAYEE_FSP_NOT_FOUND, f"Participant {name} not found")


def payee_inactive(name: str) -> FspiopError:
    return fspiop_error(ErrorCode.PAYEE_FSP_NOT_FOUND, f"Participant {name} is inactive")


def payer_not_found(name: str) -> FspiopError:
    return fspiop_error(ErrorCode.PAYER_FSP_NOT_FOUND, f"Participant {name} not found")


def payer_inactive(name: str) -> FspiopError:
    return fspiop_error(ErrorCode.PAYER_FSP_NOT_FOUND, f"Participant {name} is inactive")
