"""What becomes of a POST /transfers: the decision of single-prepare, bulk-prepare's checks and prepare's in one.

Checks, in this order; the first that fails is the refusal (architecture §6, reference §11.22–26):

    1  the sender is a participant, and the payer of the transfer it sends (3100); a refusal here writes nothing under the id
    2  seen before: this very request → nothing; the same body → the outcome once more, or nothing while the transfer goes
       on; another body, or an id that is not this payer's single transfer → 3106
    3  the expiration lies after the receipt and within the horizon (3100)
    4  payer and payee differ (3100); payer is active (3202); payee is known (3203) and active (3100); FSPIOP-Destination, if
       it names somebody else, likewise
    5  not expired since (3303), amount, accounts, condition (3100): domain/prepare.py

What fails from 3 on is written as INVALID, so that its id stays used and a GET can tell why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from domain.fspiop_errors import MODIFIED_REQUEST, SOURCE_IS_NOT_PAYER, FspiopError, source_inactive
from domain.parties import expiration_refusal, parties_refusal
from domain.prepare import AccountFact, JudgedTerms, TransferTerms, judge_terms


class SingleToPrepare(TransferTerms, Protocol):
    """A POST /transfers, as its message says it. Times in milliseconds since 1970."""

    @property
    def transfer_id(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def source(self) -> str: ...
    @property
    def destination(self) -> str | None: ...
    @property
    def received_at_ms(self) -> int: ...
    @property
    def hash(self) -> bytes: ...


class KnownTransfer(NamedTuple):
    """What stands under a transferId: `payer_fsp` and `request_id` are None where it is an item of a bulk."""

    hash: bytes
    payer_fsp: str | None
    request_id: bytes | None
    has_ended: bool


@dataclass(frozen=True, slots=True)
class SinglePrepareFacts:
    """All that is known about a batch of requests.

    `participants` maps the name of every participant named in it to whether it is active; `known` what stands under the
    transferIds; `accounts` by (participant's name, currency).
    """

    participants: Mapping[str, bool]
    known: Mapping[bytes, KnownTransfer]
    accounts: Mapping[tuple[str, str], AccountFact]
    hub_name: str
    now_ms: int


class SingleVerdict(Enum):
    """What single-prepare does with a request."""

    IGNORE = "nothing is written, nobody is told"
    REFUSE = "nothing is written, and PUT /error to the sender"
    RESEND = "the outcome once more"
    INVALID = "written as INVALID, and PUT /error to the payer"
    VALID = "written as RECEIVED_PREPARE, and on to position"


class PreparedSingle(NamedTuple):
    """The verdict on one request; `terms` where it is written, `number` counts it within the batch."""

    request: SingleToPrepare
    verdict: SingleVerdict
    error: FspiopError | None = None
    terms: JudgedTerms | None = None


def decide_single_prepare(
    requests: Sequence[SingleToPrepare], facts: SinglePrepareFacts, expiration_horizon_ms: int
) -> list[PreparedSingle]:
    """A verdict per request, in order; of two with one transferId in a batch the first one has it."""
    known = dict(facts.known)
    decided: list[PreparedSingle] = []
    for request in requests:
        prepared = _decide(request, facts, known, expiration_horizon_ms)
        if prepared.terms is not None:
            known[request.transfer_id] = KnownTransfer(
                request.hash, request.payer_fsp, request.request_id, prepared.verdict is SingleVerdict.INVALID
            )
        decided.append(prepared)
    return decided


def _decide(
    request: SingleToPrepare,
    facts: SinglePrepareFacts,
    known: Mapping[bytes, KnownTransfer],
    expiration_horizon_ms: int,
) -> PreparedSingle:
    if request.source not in facts.participants or request.source == facts.hub_name:
        # Nobody to answer: a callback needs an endpoint, and only participants have one.
        return PreparedSingle(request, SingleVerdict.IGNORE)
    if request.payer_fsp != request.source:
        return PreparedSingle(request, SingleVerdict.REFUSE, SOURCE_IS_NOT_PAYER)
    before = known.get(request.transfer_id)
    if before is not None:
        return _seen_before(request, before)
    terms = judge_terms(request, facts.accounts, facts.now_ms)
    error = (
        expiration_refusal(request.expiration_ms, request.received_at_ms, expiration_horizon_ms)
        or parties_refusal(
            request.payer_fsp,
            request.payee_fsp,
            request.destination,
            facts.participants,
            facts.hub_name,
            inactive=source_inactive,
        )
        or terms.error
    )
    verdict = SingleVerdict.VALID if error is None else SingleVerdict.INVALID
    return PreparedSingle(request, verdict, error, terms)


def _seen_before(request: SingleToPrepare, before: KnownTransfer) -> PreparedSingle:
    if before.request_id == request.request_id:
        return PreparedSingle(request, SingleVerdict.IGNORE)
    if before.hash != request.hash or before.payer_fsp != request.source:
        return PreparedSingle(request, SingleVerdict.REFUSE, MODIFIED_REQUEST)
    return PreparedSingle(request, SingleVerdict.RESEND if before.has_ended else SingleVerdict.IGNORE)
