"""What an unfinished bulk or transfer waits for, as a function of its rows: the message that its state calls for, once more.

Whatever a handler sends follows from what it has written, so a message that was lost is derived again from what stands in
the database. Who reads a message drops it by state when it is a repeat; that is what makes it safe to derive it at any
moment, for any part of what is open, any number of times.

    an item of a bulk     its transfer is          what is sent
    RECEIVED              not there                its part of the payer's request, to prepare; after EXPIRING #22
    RECEIVED              RECEIVED_PREPARE         #7: position reserves it
    RECEIVED              RESERVED                 #9: bulk-processing has not heard of it
    ACCEPTED              RESERVED                 its part of the payee's answer, to fulfil, once there is an answer;
                                                   before that it waits for the payee, after EXPIRING for the clock
    RECEIVED, ACCEPTED    on its way, or ended     what domain/timeout.py says (due_message)

A bulk whose items are all told needs no message: bulk-processing decides in the transaction that tells the last one, so "the
phase is over and nobody has decided" is a state that no transaction commits. What a bulk owes beside that are callbacks: the
POST to the payee while it is ACCEPTED, the final ones when it has ended. A single transfer owes what
domain/single_transfers.py says of its state: a move of money (position_request), or callbacks (tellings).
"""

from enum import Enum
from typing import NamedTuple

from domain.combinations import ITEM_EXPIRED, ITEM_RESERVED, POSITION_PREPARE
from domain.fspiop_errors import TRANSFER_EXPIRED
from domain.states import BulkState, ItemState, TransferState
from domain.timeout import DueMessage, OpenItem, due_message


class FromRequest(Enum):
    """The message is a part of a request that an FSP has sent, and is made from what was kept of it."""

    PREPARE = "the payer's POST"
    FULFIL = "the payee's answer"


class WaitsFor(Enum):
    """No message is owed: somebody else has to move first."""

    PAYEE = "the payee's answer"
    CLOCK = "the next look of timeout"


_ANSWERED = frozenset({BulkState.PROCESSING, BulkState.PENDING_FULFIL})


def item_owes(bulk_state: BulkState, item: OpenItem) -> DueMessage | FromRequest | WaitsFor:
    """What an open item of a bulk in this state waits for; see the module's docstring."""
    match item.transfer_state:
        case None if bulk_state is BulkState.EXPIRING:
            return DueMessage(item.transfer_key, ITEM_EXPIRED, TRANSFER_EXPIRED)
        case None:
            return FromRequest.PREPARE
        case TransferState.RECEIVED_PREPARE:
            return DueMessage(item.transfer_key, POSITION_PREPARE)
        case TransferState.RESERVED if item.item_state is ItemState.RECEIVED:
            return DueMessage(item.transfer_key, ITEM_RESERVED)
        case TransferState.RESERVED if bulk_state is BulkState.EXPIRING:
            return WaitsFor.CLOCK
        case TransferState.RESERVED:
            return FromRequest.FULFIL if bulk_state in _ANSWERED else WaitsFor.PAYEE
        case state:
            return due_message(item.transfer_key, state, item.reason, item.error)


class KeptRequestKind(Enum):
    """Which request an FSP sent, told by the resource of its media type and by the members of its body."""

    POST_BULK = "POST /bulkTransfers"
    PUT_BULK = "PUT /bulkTransfers/{ID}"
    PUT_BULK_ERROR = "PUT /bulkTransfers/{ID}/error"
    POST_SINGLE = "POST /transfers"
    PUT_SINGLE = "PUT /transfers/{ID}"
    PUT_SINGLE_ERROR = "PUT /transfers/{ID}/error"

    @property
    def is_post(self) -> bool:
        return self in (KeptRequestKind.POST_BULK, KeptRequestKind.POST_SINGLE)

    @property
    def is_single(self) -> bool:
        return self.value.split()[1].startswith("/transfers")


class Standing(NamedTuple):
    """How far the entity under an id has come: `waits_for_answer` or beyond says that an answer to it can be judged."""

    is_known: bool
    may_be_answered: bool


class RequestVerdict(Enum):
    """What is done with a kept request that no row names."""

    PUBLISH = "published"
    LATER = "waits for its bulk or transfer: once that is worked on, run this again"


def judge_request(kind: KeptRequestKind, standing: Standing, *, post_is_kept: bool) -> RequestVerdict:
    """An answer is judged against what it answers: it would be refused for ever if it came before that was worked on.

    `post_is_kept`: a POST under the same id lies in the store, so that the entity is on its way even if no row knows it.
    """
    if kind.is_post or standing.may_be_answered:
        return RequestVerdict.PUBLISH
    # What nobody knows and nobody has posted is refused now as it would have been then.
    return RequestVerdict.LATER if standing.is_known or post_is_kept else RequestVerdict.PUBLISH
