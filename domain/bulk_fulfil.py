"""What becomes of a PUT /bulkTransfers/{ID} or its /error from the payee: the decision of bulk-fulfil.

Checks, in this order; nothing is written before the first three have passed (D12):

    1  the sender is active (3100); the bulk is known, and the sender is its payee, else 3210 to the sender
    2  seen before: this very request → nothing; the same body → the stored callback, or nothing while the bulk goes on;
       another body → 3106
    3  the payload could be read (else 2001 to the payee, who can send it again)
    4  the state is one that ends something: RECEIVED…PROCESSING without results says nothing; with results it counts as
       COMPLETED
    5  the bulk is ACCEPTED: before that 3210; after that (it expired, or ended) no effect
    6  every transferId was forwarded in this bulk, and stands once (D13, BULK-125), else 3100 to the payee, nothing is
       kept and the bulk waits for a better answer
    7  completedTimestamp lies at most ahead_ms after the receipt, and at most age_ms before it (off by default); else the
       fulfil is invalid as a whole: everything is aborted, the bulk ends INVALID

What is accepted makes an answer for *every* item that was forwarded: an item that the payee left out is aborted (D11, D23),
as is every item after REJECTED or PUT /error, whatever fulfilments stand inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from domain.bulk_processing import FulfilOutcome
from domain.fspiop_errors import (
    BULK_NOT_FOUND,
    MODIFIED_REQUEST,
    ErrorCode,
    FspiopError,
    fspiop_error,
    source_inactive,
)
from domain.identifiers import id_text
from domain.states import BulkState, is_final


@dataclass(frozen=True, slots=True)
class FulfilRules:
    """The scheme's settings; `completed_timestamp_age_ms` None means that an old timestamp is no error."""

    completed_timestamp_ahead_ms: int = 5_000
    completed_timestamp_age_ms: int | None = None


class ItemAnswer(NamedTuple):
    """What the payee says of one transfer: a fulfilment, or an error, or neither (which is a missing fulfilment)."""

    transfer_id: bytes
    fulfilment: str | None
    error: FspiopError | None


@dataclass(frozen=True, slots=True)
class FulfilRequest:
    """What the body says. `error` is set for PUT /error, `state` for PUT; `completed_ms` where a timestamp was given."""

    state: str | None
    error: FspiopError | None
    completed_ms: int | None
    answers: Sequence[ItemAnswer]
    hash: bytes


@dataclass(frozen=True, slots=True)
class BulkToFulfil:
    """The bulk under the id. `forwarded` maps each transferId that was forwarded to its transfer key."""

    payee_fsp: str | None
    state: BulkState
    fulfil_request_id: bytes | None
    fulfil_hash: bytes | None
    forwarded: Mapping[bytes, int]


@dataclass(frozen=True, slots=True)
class FulfilFacts:
    """One request with all that is known; `request` is None where the payload is missing or corrupt."""

    request_id: bytes
    source: str
    received_at_ms: int
    request: FulfilRequest | None
    bulk: BulkToFulfil | None
    source_is_active: bool = True


class FulfilVerdict(Enum):
    IGNORE = "nothing is written, nobody is told"
    ANSWER_ERROR = "nothing is written, and PUT /error to the sender"
    RESEND = "the stored callback once more"
    ACCEPT = "PROCESSING, and one message per forwarded item"


class MemberAnswer(NamedTuple):
    """What goes on to fulfil for one member: `refused` by the payee, or failed (`error` without refused), or fulfilled."""

    transfer_key: int
    transfer_id: bytes
    fulfilment: str | None = None
    error: FspiopError | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class FulfilDecision:
    verdict: FulfilVerdict
    error: FspiopError | None = None
    outcome: FulfilOutcome | None = None
    members: Sequence[MemberAnswer] = ()


_IGNORE = FulfilDecision(FulfilVerdict.IGNORE)
_FINAL_API_STATES = frozenset({"COMPLETED", "REJECTED"})
_BEFORE_ACCEPTED = frozenset({BulkState.RECEIVED, BulkState.PENDING_PREPARE, BulkState.PENDING_INVALID})

OMITTED = fspiop_error(ErrorCode.PAYEE_ERROR, "the payee's answer does not name this transfer")
REJECTED_BY_PAYEE = fspiop_error(ErrorCode.PAYEE_REJECTION, "the payee rejected the bulk")


def decide_bulk_fulfil(facts: FulfilFacts, rules: FulfilRules) -> FulfilDecision:
    """The verdict on one request; the order of the checks is the module's docstring."""
    bulk, request = facts.bulk, facts.request
    if not facts.source_is_active:
        return FulfilDecision(FulfilVerdict.ANSWER_ERROR, source_inactive(facts.source))
    if bulk is None or bulk.payee_fsp != facts.source:
        return FulfilDecision(FulfilVerdict.ANSWER_ERROR, BULK_NOT_FOUND)
    if facts.request_id == bulk.fulfil_request_id:
        return _IGNORE
    if request is None:
        detail = "the request's payload could not be read; please send it again"
        return FulfilDecision(FulfilVerdict.ANSWER_ERROR, fspiop_error(ErrorCode.INTERNAL_SERVER_ERROR, detail))
    if bulk.fulfil_hash is not None:
        if bulk.fulfil_hash != request.hash:
            return FulfilDecision(FulfilVerdict.ANSWER_ERROR, MODIFIED_REQUEST)
        return FulfilDecision(FulfilVerdict.RESEND) if is_final(bulk.state) else _IGNORE
    if request.error is None and request.state not in _FINAL_API_STATES and not request.answers:
        return _IGNORE
    if bulk.state in _BEFORE_ACCEPTED:
        return FulfilDecision(FulfilVerdict.ANSWER_ERROR, BULK_NOT_FOUND)
    if bulk.state is not BulkState.ACCEPTED:
        return _IGNORE
    error = _wrong_ids(request, bulk)
    if error is not None:
        return FulfilDecision(FulfilVerdict.ANSWER_ERROR, error)
    return _accept(request, bulk, _timestamp_error(request, facts.received_at_ms, rules))


def _wrong_ids(request: FulfilRequest, bulk: BulkToFulfil) -> FspiopError | None:
    seen: set[bytes] = set()
    for answer in request.answers:
        if answer.transfer_id not in bulk.forwarded:
            text = f"transferId {id_text(answer.transfer_id)} was not forwarded in this bulk"
            return fspiop_error(ErrorCode.VALIDATION_ERROR, text)
        if answer.transfer_id in seen:
            text = f"transferId {id_text(answer.transfer_id)} stands twice"
            return fspiop_error(ErrorCode.VALIDATION_ERROR, text)
        seen.add(answer.transfer_id)
    return None


def _timestamp_error(request: FulfilRequest, received_at_ms: int, rules: FulfilRules) -> FspiopError | None:
    completed = request.completed_ms
    if completed is None:
        return None
    if completed > received_at_ms + rules.completed_timestamp_ahead_ms:
        return fspiop_error(ErrorCode.VALIDATION_ERROR, "completedTimestamp is in the future")
    age = rules.completed_timestamp_age_ms
    if age is not None and completed < received_at_ms - age:
        return fspiop_error(ErrorCode.VALIDATION_ERROR, f"completedTimestamp is older than {age // 1000} s")
    return None


def _accept(request: FulfilRequest, bulk: BulkToFulfil, invalid: FspiopError | None) -> FulfilDecision:
    if invalid is not None:
        outcome, error = FulfilOutcome.INVALID, invalid
    elif request.error is not None:
        outcome, error = FulfilOutcome.ERROR, request.error
    elif request.state == "REJECTED":
        outcome, error = FulfilOutcome.REJECTED, REJECTED_BY_PAYEE
    else:
        outcome, error = FulfilOutcome.VALID, None
    return FulfilDecision(
        FulfilVerdict.ACCEPT, error, outcome, members_of(request.answers, bulk.forwarded, outcome, error)
    )


def members_of(
    answers: Sequence[ItemAnswer], forwarded: Mapping[bytes, int], outcome: FulfilOutcome, error: FspiopError | None
) -> list[MemberAnswer]:
    """What an accepted answer says of each of these forwarded items; `error` is the whole answer's, if it has one."""
    by_id = {answer.transfer_id: answer for answer in answers}
    return [_member(transfer_id, key, by_id.get(transfer_id), outcome, error) for transfer_id, key in forwarded.items()]


def _member(
    transfer_id: bytes, key: int, answer: ItemAnswer | None, outcome: FulfilOutcome, error: FspiopError | None
) -> MemberAnswer:
    own_error = None if answer is None else answer.error
    match outcome:
        case FulfilOutcome.INVALID:
            return MemberAnswer(key, transfer_id, error=error)
        case FulfilOutcome.ERROR:
            return MemberAnswer(key, transfer_id, error=error, refused=True)
        case FulfilOutcome.REJECTED:
            return MemberAnswer(key, transfer_id, error=own_error or error, refused=True)
        case FulfilOutcome.VALID:  # pragma: no branch  # the last there is: mypy finds one that is missing
            if answer is None:
                return MemberAnswer(key, transfer_id, error=OMITTED)
            if own_error is not None:
                # An error beside a fulfilment is a refusal: money moves only on an answer without a doubt.
                return MemberAnswer(key, transfer_id, error=own_error, refused=True)
            return MemberAnswer(key, transfer_id, fulfilment=answer.fulfilment)
