"""Which message says what: the 24 type/action/status combinations of seed 002 §4.3, ours, and the single transfers'.

A combination belongs to a topic, because two of the seed's are told apart by it alone (#12 and #19, X-15). The seed's
spelling is kept to the letter (X-17: `reject` has no `bulk-` before it). What the seed does not list but the design
needs stands below it as an extension, without a number. `require_known` is the gate for a message that was read:
an unknown one raises, and the loop makes a dead letter of it (BULK-82).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

TOPIC_BULK_PREPARE = "topic-bulk-prepare"
TOPIC_TRANSFER_PREPARE = "topic-transfer-prepare"
TOPIC_TRANSFER_POSITION = "topic-transfer-position"
TOPIC_BULK_PROCESSING = "topic-bulk-processing"
TOPIC_BULK_FULFIL = "topic-bulk-fulfil"
TOPIC_TRANSFER_FULFIL = "topic-transfer-fulfil"
TOPIC_BULK_GET = "topic-bulk-get"
TOPIC_NOTIFICATION = "topic-notification-event"
# Single transfers have a lane of their own, so that no bulk is ever queued before them (BULK-133, decision 0012).
TOPIC_SINGLE_PREPARE = "topic-single-transfer-prepare"
TOPIC_SINGLE_POSITION = "topic-single-transfer-position"
TOPIC_SINGLE_FULFIL = "topic-single-transfer-fulfil"
TOPIC_SINGLE_NOTIFICATION = "topic-single-notification-event"
TOPIC_TRANSFER_GET = "topic-transfer-get"

SUCCESS = "success"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Combination:
    """One line of the table: the message of `type`, `action` and `status` that `source` puts on `topic`."""

    number: int | None
    source: str
    topic: str
    type: str
    action: str
    status: str


class UnknownCombination(Exception):
    """No handler knows what this type, action and status would mean on this topic."""


# Seed 002 §4.3, in its order (BULK-58…81).
BULK_PREPARE = Combination(1, "adapter", TOPIC_BULK_PREPARE, "bulk-prepare", "bulk-prepare", SUCCESS)
BULK_PREPARE_DUPLICATE = Combination(
    2, "bulk-prepare", TOPIC_NOTIFICATION, "notification", "bulk-prepare-duplicate", SUCCESS
)
BULK_PREPARE_REFUSED = Combination(3, "bulk-prepare", TOPIC_NOTIFICATION, "notification", "bulk-abort", ERROR)
ITEM_PREPARE = Combination(4, "bulk-prepare", TOPIC_TRANSFER_PREPARE, "prepare", "bulk-prepare", SUCCESS)
# #5 is the transferId that was used with another body (3106), #6 the one that was used with the same body (3100).
ITEM_MODIFIED = Combination(5, "prepare", TOPIC_BULK_PROCESSING, "bulk-processing", "prepare-duplicate", SUCCESS)
ITEM_DUPLICATE = Combination(6, "prepare", TOPIC_BULK_PROCESSING, "bulk-processing", "prepare-duplicate", ERROR)
POSITION_PREPARE = Combination(7, "prepare", TOPIC_TRANSFER_POSITION, "position", "bulk-prepare", SUCCESS)
ITEM_INVALID = Combination(8, "prepare", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-prepare", ERROR)
ITEM_RESERVED = Combination(9, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-prepare", SUCCESS)
ITEM_NOT_RESERVED = Combination(10, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-prepare", ERROR)
ITEM_COMMITTED = Combination(11, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-commit", SUCCESS)
BULK_FULFIL = Combination(12, "adapter", TOPIC_BULK_FULFIL, "bulk-fulfil", "bulk-commit", SUCCESS)
# #13, #15 and #16 cannot arise here; bulk-processing knows them all the same. #13 and #24 read alike.
ITEM_TIMED_OUT = Combination(13, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-timeout-reserved", ERROR)
ITEM_REFUSED = Combination(14, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "reject", SUCCESS)
FULFIL_MODIFIED = Combination(15, "fulfil", TOPIC_BULK_PROCESSING, "bulk-processing", "fulfil-duplicate", ERROR)
FULFIL_DUPLICATE = Combination(16, "fulfil", TOPIC_BULK_PROCESSING, "bulk-processing", "fulfil-duplicate", SUCCESS)
POSITION_COMMIT = Combination(17, "fulfil", TOPIC_TRANSFER_POSITION, "position", "bulk-commit", SUCCESS)
ITEM_FULFIL_INVALID = Combination(18, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-commit", ERROR)
ITEM_FULFIL = Combination(19, "bulk-fulfil", TOPIC_TRANSFER_FULFIL, "bulk-fulfil", "bulk-commit", SUCCESS)
BULK_FULFIL_REFUSED = Combination(20, "bulk-fulfil", TOPIC_NOTIFICATION, "notification", "bulk-abort", ERROR)
BULK_FORWARD = Combination(21, "bulk-processing", TOPIC_NOTIFICATION, "notification", "bulk-prepare", SUCCESS)
BULK_FINAL = Combination(21, "bulk-processing", TOPIC_NOTIFICATION, "notification", "bulk-commit", SUCCESS)
ITEM_EXPIRED = Combination(22, "timeout", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-timeout-received", ERROR)
POSITION_TIMEOUT = Combination(23, "timeout", TOPIC_TRANSFER_POSITION, "position", "bulk-timeout-reserved", ERROR)
ITEM_RELEASED = Combination(24, "position", TOPIC_BULK_PROCESSING, "bulk-processing", "bulk-timeout-reserved", ERROR)

SEED_COMBINATIONS = (
    BULK_PREPARE,
    BULK_PREPARE_DUPLICATE,
    BULK_PREPARE_REFUSED,
    ITEM_PREPARE,
    ITEM_MODIFIED,
    ITEM_DUPLICATE,
    POSITION_PREPARE,
    ITEM_INVALID,
    ITEM_RESERVED,
    ITEM_NOT_RESERVED,
    ITEM_COMMITTED,
    BULK_FULFIL,
    ITEM_TIMED_OUT,
    ITEM_REFUSED,
    FULFIL_MODIFIED,
    FULFIL_DUPLICATE,
    POSITION_COMMIT,
    ITEM_FULFIL_INVALID,
    ITEM_FULFIL,
    BULK_FULFIL_REFUSED,
    BULK_FORWARD,
    BULK_FINAL,
    ITEM_EXPIRED,
    POSITION_TIMEOUT,
    ITEM_RELEASED,
)

# Ours (architecture §5).
# The payee's PUT /bulkTransfers/{ID}/error.
BULK_FULFIL_ERROR = Combination(None, "adapter", TOPIC_BULK_FULFIL, "bulk-fulfil", "bulk-abort", SUCCESS)
# A member the payee refused: REJECTED, PUT /error, or its own errorInformation.
ITEM_FULFIL_REFUSED = Combination(None, "bulk-fulfil", TOPIC_TRANSFER_FULFIL, "bulk-fulfil", "bulk-abort", SUCCESS)
# A member the payee left out, or one of a fulfil that was invalid as a whole.
ITEM_FULFIL_FAILED = Combination(None, "bulk-fulfil", TOPIC_TRANSFER_FULFIL, "bulk-fulfil", "bulk-abort", ERROR)
# Position gives the funds back and answers with #14 …
POSITION_REJECT = Combination(None, "fulfil", TOPIC_TRANSFER_POSITION, "position", "reject", SUCCESS)
# … or with #18: wrong or missing fulfilment, omitted, invalid as a whole.
POSITION_ABORT = Combination(None, "fulfil", TOPIC_TRANSFER_POSITION, "position", "bulk-abort", ERROR)
BULK_GET = Combination(None, "adapter", TOPIC_BULK_GET, "bulk-get", "bulk-get", SUCCESS)
BULK_GET_ANSWER = Combination(None, "bulk-get", TOPIC_NOTIFICATION, "notification", "bulk-get", SUCCESS)
BULK_GET_ERROR = Combination(None, "bulk-get", TOPIC_NOTIFICATION, "notification", "bulk-get", ERROR)
# The same bulkTransferId with another body: 3106 to the sender.
BULK_PREPARE_MODIFIED = Combination(
    None, "bulk-prepare", TOPIC_NOTIFICATION, "notification", "bulk-prepare-duplicate", ERROR
)
BULK_FULFIL_DUPLICATE = Combination(
    None, "bulk-fulfil", TOPIC_NOTIFICATION, "notification", "bulk-fulfil-duplicate", SUCCESS
)
BULK_FULFIL_MODIFIED = Combination(
    None, "bulk-fulfil", TOPIC_NOTIFICATION, "notification", "bulk-fulfil-duplicate", ERROR
)
# The payer's PUT /error: after a fulfil that was invalid as a whole, or the payee's own PUT /error.
BULK_FINAL_ERROR = Combination(None, "bulk-processing", TOPIC_NOTIFICATION, "notification", "bulk-commit", ERROR)

EXTENSIONS = (
    BULK_FULFIL_ERROR,
    ITEM_FULFIL_REFUSED,
    ITEM_FULFIL_FAILED,
    POSITION_REJECT,
    POSITION_ABORT,
    BULK_GET,
    BULK_GET_ANSWER,
    BULK_GET_ERROR,
    BULK_PREPARE_MODIFIED,
    BULK_FULFIL_DUPLICATE,
    BULK_FULFIL_MODIFIED,
    BULK_FINAL_ERROR,
)

# Single transfers, with Mojaloop's actions for them.
SINGLE_PREPARE = Combination(None, "adapter", TOPIC_SINGLE_PREPARE, "prepare", "prepare", SUCCESS)
SINGLE_POSITION_PREPARE = Combination(None, "single-prepare", TOPIC_SINGLE_POSITION, "position", "prepare", SUCCESS)
# The payee answered COMMITTED, or RESERVED (then it is told the outcome by PATCH), or its PUT /error.
SINGLE_COMMIT = Combination(None, "adapter", TOPIC_SINGLE_FULFIL, "fulfil", "commit", SUCCESS)
SINGLE_RESERVE = Combination(None, "adapter", TOPIC_SINGLE_FULFIL, "fulfil", "reserve", SUCCESS)
SINGLE_ABORT = Combination(None, "adapter", TOPIC_SINGLE_FULFIL, "fulfil", "abort", SUCCESS)
SINGLE_POSITION_COMMIT = Combination(None, "single-fulfil", TOPIC_SINGLE_POSITION, "position", "commit", SUCCESS)
SINGLE_POSITION_RESERVE = Combination(None, "single-fulfil", TOPIC_SINGLE_POSITION, "position", "reserve", SUCCESS)
SINGLE_POSITION_ABORT = Combination(None, "single-fulfil", TOPIC_SINGLE_POSITION, "position", "abort", ERROR)
# A wrong or missing fulfilment: after COMMITTED, and after RESERVED, where the payee is told too.
SINGLE_POSITION_ABORT_VALIDATION = Combination(
    None, "single-fulfil", TOPIC_SINGLE_POSITION, "position", "abort-validation", ERROR
)
SINGLE_POSITION_RESERVED_ABORTED = Combination(
    None, "single-fulfil", TOPIC_SINGLE_POSITION, "position", "reserved-aborted", ERROR
)
SINGLE_POSITION_TIMEOUT = Combination(None, "timeout", TOPIC_SINGLE_POSITION, "position", "timeout-reserved", ERROR)
TRANSFER_GET = Combination(None, "adapter", TOPIC_TRANSFER_GET, "get", "get", SUCCESS)


def _told(source: str, action: str, status: str) -> Combination:
    return Combination(None, source, TOPIC_SINGLE_NOTIFICATION, "notification", action, status)


SINGLE_PREPARE_REFUSED = _told("single-prepare", "prepare", ERROR)
SINGLE_PREPARE_DUPLICATE = _told("single-prepare", "prepare-duplicate", SUCCESS)
SINGLE_PREPARE_MODIFIED = _told("single-prepare", "prepare-duplicate", ERROR)
SINGLE_FORWARD = _told("single-position", "prepare", SUCCESS)
SINGLE_NOT_RESERVED = _told("single-position", "prepare", ERROR)
SINGLE_COMMITTED = _told("single-position", "commit", SUCCESS)
SINGLE_RESERVED_COMMITTED = _told("single-position", "reserve", SUCCESS)
SINGLE_ABORTED = _told("single-position", "abort", ERROR)
SINGLE_ABORTED_VALIDATION = _told("single-position", "abort-validation", ERROR)
SINGLE_RESERVED_ABORTED = _told("single-position", "reserved-aborted", ERROR)
SINGLE_RELEASED = _told("single-position", "timeout-reserved", ERROR)
SINGLE_EXPIRED = _told("timeout", "timeout-received", ERROR)
SINGLE_FULFIL_REFUSED = _told("single-fulfil", "commit", ERROR)
SINGLE_FULFIL_DUPLICATE = _told("single-fulfil", "fulfil-duplicate", SUCCESS)
SINGLE_FULFIL_MODIFIED = _told("single-fulfil", "fulfil-duplicate", ERROR)
TRANSFER_GET_ANSWER = _told("transfer-get", "get", SUCCESS)
TRANSFER_GET_ERROR = _told("transfer-get", "get", ERROR)

SINGLE_COMBINATIONS = (
    SINGLE_PREPARE,
    SINGLE_POSITION_PREPARE,
    SINGLE_COMMIT,
    SINGLE_RESERVE,
    SINGLE_ABORT,
    SINGLE_POSITION_COMMIT,
    SINGLE_POSITION_RESERVE,
    SINGLE_POSITION_ABORT,
    SINGLE_POSITION_ABORT_VALIDATION,
    SINGLE_POSITION_RESERVED_ABORTED,
    SINGLE_POSITION_TIMEOUT,
    TRANSFER_GET,
    SINGLE_PREPARE_REFUSED,
    SINGLE_PREPARE_DUPLICATE,
    SINGLE_PREPARE_MODIFIED,
    SINGLE_FORWARD,
    SINGLE_NOT_RESERVED,
    SINGLE_COMMITTED,
    SINGLE_RESERVED_COMMITTED,
    SINGLE_ABORTED,
    SINGLE_ABORTED_VALIDATION,
    SINGLE_RESERVED_ABORTED,
    SINGLE_RELEASED,
    SINGLE_EXPIRED,
    SINGLE_FULFIL_REFUSED,
    SINGLE_FULFIL_DUPLICATE,
    SINGLE_FULFIL_MODIFIED,
    TRANSFER_GET_ANSWER,
    TRANSFER_GET_ERROR,
)

_KNOWN = frozenset(
    (one.topic, one.type, one.action, one.status) for one in SEED_COMBINATIONS + EXTENSIONS + SINGLE_COMBINATIONS
)


class _SaysWhat(Protocol):
    """Any message of a topic in the catalogue."""

    @property
    def type(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def status(self) -> str: ...


def require_all_known(topic: str, messages: Iterable[_SaysWhat]) -> None:
    """Raise UnknownCombination unless every message of a batch is one that this topic knows."""
    for type_, action, status in {(message.type, message.action, message.status) for message in messages}:
        require_known(topic, type_, action, status)


def require_known(topic: str, type_: str, action: str, status: str) -> None:
    """Raise UnknownCombination unless a line above puts this type, action and status on this topic."""
    if (topic, type_, action, status) not in _KNOWN:
        raise UnknownCombination(f"{topic} knows no message of type {type_}, action {action}, status {status}")
