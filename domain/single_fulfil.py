"""What becomes of the payee's answer to a single transfer: the decision of single-fulfil.

Checks, in this order (architecture §6, reference §11.23–25); nothing is written before they have been passed:

    1  the sender is a participant: else nothing, there is nobody to answer; and active (3100)
    2  a single transfer stands under the id, it was forwarded, and the sender is its payee: else 3208 (a member of a bulk is
       fulfilled as a bulk)
    3  answered before: by this very request → nothing; by the same body → the outcome once more, or nothing while the
       transfer goes on; by another body → 3106
    4  it is RESERVED and not expired: else it is too late, and the timeout has given the money back or will
    5  PUT /error → RECEIVED_ERROR; SHA-256(fulfilment) is the condition → RECEIVED_FULFIL, else RECEIVED_ERROR with 3100
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from domain.combinations import SINGLE_ABORT, SINGLE_RESERVE
from domain.fspiop_errors import (
    INVALID_FULFILMENT,
    MODIFIED_REQUEST,
    TRANSFER_NOT_FOUND,
    FspiopError,
    source_inactive,
)
from domain.prepare import decode_32_bytes
from domain.single_transfers import (
    NEVER_FORWARDED,
    REASON_ABORT,
    REASON_ABORT_VALIDATION,
    REASON_COMMIT,
    REASON_RESERVE,
    REASON_RESERVED_ABORTED,
    SingleTransfer,
    has_ended,
)
from domain.states import TransferState


class SingleAnswer(Protocol):
    """A PUT /transfers/{ID} or its /error, as its message says it."""

    @property
    def action(self) -> str: ...
    @property
    def transfer_id(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def source(self) -> str: ...
    @property
    def fulfilment(self) -> str | None: ...
    @property
    def error_code(self) -> str | None: ...
    @property
    def error_description(self) -> str | None: ...
    @property
    def hash(self) -> bytes: ...


class AnswerVerdict(Enum):
    """What single-fulfil does with an answer."""

    IGNORE = "nothing is written, nobody is told"
    REFUSE = "nothing is written, and PUT /error to the sender"
    RESEND = "the outcome once more, to the payee"
    ACCEPT = "the answer is written, the transfer leaves RESERVED, and on to position"


class JudgedAnswer(NamedTuple):
    """The verdict on one answer; the step out of RESERVED where it is accepted."""

    answer: SingleAnswer
    verdict: AnswerVerdict
    error: FspiopError | None = None
    single: SingleTransfer | None = None
    to_state: TransferState | None = None
    reason: str = ""
    fulfilment: bytes | None = None


@dataclass(frozen=True, slots=True)
class SingleFulfilFacts:
    """`participants` maps those of the senders that are known to whether they are active; `singles` by transferId."""

    participants: Mapping[str, bool]
    singles: Mapping[bytes, SingleTransfer]
    now_ms: int


def decide_single_fulfil(answers: Sequence[SingleAnswer], facts: SingleFulfilFacts) -> list[JudgedAnswer]:
    """A verdict per answer, in order; of two answers for one transfer in a batch the first one counts."""
    singles = dict(facts.singles)
    judged: list[JudgedAnswer] = []
    for answer in answers:
        one = _decide(answer, singles.get(answer.transfer_id), facts)
        if one.verdict is AnswerVerdict.ACCEPT:
            assert one.single is not None
            # From here on it has been answered; its state matters no more to the answers behind this one.
            singles[answer.transfer_id] = one.single._replace(
                fulfil_request_id=answer.request_id, fulfil_hash=answer.hash
            )
        judged.append(one)
    return judged


def _decide(answer: SingleAnswer, single: SingleTransfer | None, facts: SingleFulfilFacts) -> JudgedAnswer:
    if answer.source not in facts.participants:
        return JudgedAnswer(answer, AnswerVerdict.IGNORE)
    if not facts.participants[answer.source]:
        return JudgedAnswer(answer, AnswerVerdict.REFUSE, source_inactive(answer.source))
    if single is None or answer.source != single.payee_fsp or single.state in NEVER_FORWARDED:
        return JudgedAnswer(answer, AnswerVerdict.REFUSE, TRANSFER_NOT_FOUND)
    if single.fulfil_request_id is not None:
        return _answered_before(answer, single)
    if single.state is not TransferState.RESERVED or single.expiration_ms <= facts.now_ms:
        return JudgedAnswer(answer, AnswerVerdict.IGNORE)
    return _accept(answer, single)


def _answered_before(answer: SingleAnswer, single: SingleTransfer) -> JudgedAnswer:
    if single.fulfil_request_id == answer.request_id:
        return JudgedAnswer(answer, AnswerVerdict.IGNORE)
    if single.fulfil_hash != answer.hash:
        return JudgedAnswer(answer, AnswerVerdict.REFUSE, MODIFIED_REQUEST)
    return JudgedAnswer(
        answer, AnswerVerdict.RESEND if has_ended(single.state) else AnswerVerdict.IGNORE, single=single
    )


def _accept(answer: SingleAnswer, single: SingleTransfer) -> JudgedAnswer:
    accepted = JudgedAnswer(answer, AnswerVerdict.ACCEPT, single=single, to_state=TransferState.RECEIVED_ERROR)
    if answer.action == SINGLE_ABORT.action:
        assert answer.error_code is not None
        assert answer.error_description is not None
        return accepted._replace(error=FspiopError(answer.error_code, answer.error_description), reason=REASON_ABORT)
    is_reserve = answer.action == SINGLE_RESERVE.action
    preimage = None if answer.fulfilment is None else decode_32_bytes(answer.fulfilment)
    if preimage is None or hashlib.sha256(preimage).digest() != single.condition:
        reason = REASON_RESERVED_ABORTED if is_reserve else REASON_ABORT_VALIDATION
        return accepted._replace(error=INVALID_FULFILMENT, reason=reason)
    return accepted._replace(
        to_state=TransferState.RECEIVED_FULFIL,
        reason=REASON_RESERVE if is_reserve else REASON_COMMIT,
        fulfilment=preimage,
    )
