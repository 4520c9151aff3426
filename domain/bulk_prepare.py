"""What becomes of a POST /bulkTransfers: the decision of bulk-prepare.

Checks, in this order; the first that fails is the refusal (architecture §6):

    1  the sender is a participant, and the payer of the bulk it sends (3100); a refusal here writes nothing under the id
    2  seen before: this very request → nothing; the same body → the stored callback, or nothing while the bulk goes on;
       another body → 3106
    3  the payload could be read (2001, BULK-128)
    4  the expiration lies after the receipt and within the horizon (3100)
    5  payer and payee differ (3100); payer is active (3202); payee is known and active (3203); FSPIOP-Destination, if it
       names somebody else, is known and active (3203)
    6  no transferId stands twice (3100, BULK-17); 1 to items_max items (3100, BULK-129)

An expiration that has passed since the receipt is no refusal here: prepare refuses each item with 3303 (D15).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from domain.fspiop_errors import (
    MODIFIED_REQUEST,
    SOURCE_IS_NOT_PAYER,
    ErrorCode,
    FspiopError,
    fspiop_error,
)
from domain.identifiers import id_text
from domain.parties import expiration_refusal, parties_refusal
from domain.states import BulkState, is_final


@dataclass(frozen=True, slots=True)
class BulkRules:
    """The scheme's settings for a bulk."""

    items_max: int = 1000
    expiration_horizon_ms: int = 30 * 24 * 60 * 60 * 1000
    ascending_amount_order: bool = False


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What the body of a POST says, as far as it is judged here."""

    payer_fsp: str
    payee_fsp: str
    expiration_ms: int
    transfer_ids: tuple[bytes, ...]
    hash: bytes


@dataclass(frozen=True, slots=True)
class KnownBulk:
    """The bulk that already stands under the id."""

    request_id: bytes
    hash: bytes
    payer_fsp: str
    state: BulkState


@dataclass(frozen=True, slots=True)
class BulkPrepareFacts:
    """One request with all that is known about it. `request` is None where the payload is missing or corrupt.

    `participants` maps the name of every participant that is named here to whether it is active.
    """

    request_id: bytes
    source: str
    destination: str | None
    received_at_ms: int
    request: BulkRequest | None
    known: KnownBulk | None
    participants: Mapping[str, bool]
    hub_name: str


class Verdict(Enum):
    """What bulk-prepare does with a request."""

    IGNORE = "nothing is written, nobody is told"
    ACCEPT = "RECEIVED, PENDING_PREPARE, one message per item"
    REFUSE = "RECEIVED, PENDING_INVALID, REJECTED, and PUT /error to the payer"
    ANSWER_ERROR = "nothing is written, and PUT /error to the sender"
    RESEND = "the stored callback once more"


@dataclass(frozen=True, slots=True)
class BulkPrepareDecision:
    verdict: Verdict
    error: FspiopError | None = None


_IGNORE = BulkPrepareDecision(Verdict.IGNORE)


def decide_bulk_prepare(facts: BulkPrepareFacts, rules: BulkRules) -> BulkPrepareDecision:
    """The verdict on one request; the order of the checks is the module's docstring."""
    if facts.source not in facts.participants or facts.source == facts.hub_name:
        # Nobody to answer: a callback needs an endpoint, and only participants have one.
        return _IGNORE
    if facts.request is not None and facts.request.payer_fsp != facts.source:
        return BulkPrepareDecision(Verdict.ANSWER_ERROR, SOURCE_IS_NOT_PAYER)
    if facts.known is not None:
        return _seen_before(facts, facts.known)
    error = _refusal(facts, rules)
    return BulkPrepareDecision(Verdict.ACCEPT if error is None else Verdict.REFUSE, error)


def _seen_before(facts: BulkPrepareFacts, known: KnownBulk) -> BulkPrepareDecision:
    if known.request_id == facts.request_id:
        return _IGNORE
    if facts.request is None:
        return BulkPrepareDecision(Verdict.ANSWER_ERROR, _unreadable())
    if known.hash != facts.request.hash or known.payer_fsp != facts.source:
        return BulkPrepareDecision(Verdict.ANSWER_ERROR, MODIFIED_REQUEST)
    return BulkPrepareDecision(Verdict.RESEND) if is_final(known.state) else _IGNORE


def _refusal(facts: BulkPrepareFacts, rules: BulkRules) -> FspiopError | None:
    request = facts.request
    if request is None:
        return _unreadable()
    return (
        expiration_refusal(request.expiration_ms, facts.received_at_ms, rules.expiration_horizon_ms)
        or parties_refusal(request.payer_fsp, request.payee_fsp, facts.destination, facts.participants, facts.hub_name)
        or _item_refusal(request, rules)
    )


def _item_refusal(request: BulkRequest, rules: BulkRules) -> FspiopError | None:
    count = len(request.transfer_ids)
    if not 1 <= count <= rules.items_max:
        return _invalid(f"individualTransfers holds {count} items; 1 to {rules.items_max} are allowed")
    if len(set(request.transfer_ids)) < count:
        counts = Counter(request.transfer_ids)
        return _invalid(f"transferId {id_text(max(counts, key=counts.__getitem__))} stands twice in the bulk")
    return None


def _invalid(detail: str) -> FspiopError:
    return fspiop_error(ErrorCode.VALIDATION_ERROR, detail)


def _unreadable() -> FspiopError:
    return fspiop_error(
        ErrorCode.INTERNAL_SERVER_ERROR, "the request's payload could not be read; please send it again"
    )
