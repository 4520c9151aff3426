"""What every open item waits for, state by state: a message, a part of a request, or somebody else."""

import itertools

import pytest

from domain.combinations import (
    ITEM_COMMITTED,
    ITEM_EXPIRED,
    ITEM_RESERVED,
    POSITION_ABORT,
    POSITION_COMMIT,
    POSITION_PREPARE,
    POSITION_REJECT,
    POSITION_TIMEOUT,
    TOPIC_BULK_PROCESSING,
    TOPIC_TRANSFER_POSITION,
)
from domain.fspiop_errors import TRANSFER_EXPIRED, FspiopError
from domain.redrive import (
    FromRequest,
    KeptRequestKind,
    RequestVerdict,
    Standing,
    WaitsFor,
    item_owes,
    judge_request,
)
from domain.single_transfers import has_ended
from domain.states import BULK_TRANSITIONS, OPEN_ITEM_STATES, BulkState, ItemState, TransferState, is_final
from domain.timeout import DueMessage, OpenItem, due_message

ERROR = FspiopError("5104", "No.")
OPEN_BULKS = [state for state in BulkState if not is_final(state)]


def owes(
    bulk: BulkState, item: ItemState, transfer: TransferState | None, reason: str | None = "bulk-abort"
) -> DueMessage | FromRequest | WaitsFor:
    return item_owes(bulk, OpenItem(70_001, item, transfer, reason, ERROR))


@pytest.mark.parametrize(
    ("bulk", "item", "transfer", "expected"),
    [
        (BulkState.PENDING_PREPARE, ItemState.RECEIVED, None, FromRequest.PREPARE),
        (BulkState.EXPIRING, ItemState.RECEIVED, None, DueMessage(70_001, ITEM_EXPIRED, TRANSFER_EXPIRED)),
        (
            BulkState.PENDING_PREPARE,
            ItemState.RECEIVED,
            TransferState.RECEIVED_PREPARE,
            DueMessage(70_001, POSITION_PREPARE),
        ),
        (BulkState.PENDING_PREPARE, ItemState.RECEIVED, TransferState.RESERVED, DueMessage(70_001, ITEM_RESERVED)),
        (BulkState.ACCEPTED, ItemState.ACCEPTED, TransferState.RESERVED, WaitsFor.PAYEE),
        (BulkState.PROCESSING, ItemState.ACCEPTED, TransferState.RESERVED, FromRequest.FULFIL),
        (BulkState.PENDING_FULFIL, ItemState.ACCEPTED, TransferState.RESERVED, FromRequest.FULFIL),
        (BulkState.EXPIRING, ItemState.ACCEPTED, TransferState.RESERVED, WaitsFor.CLOCK),
        (
            BulkState.PROCESSING,
            ItemState.ACCEPTED,
            TransferState.RECEIVED_FULFIL,
            DueMessage(70_001, POSITION_COMMIT),
        ),
        (BulkState.PROCESSING, ItemState.ACCEPTED, TransferState.RECEIVED_ERROR, DueMessage(70_001, POSITION_ABORT)),
        (BulkState.EXPIRING, ItemState.ACCEPTED, TransferState.RESERVED_TIMEOUT, DueMessage(70_001, POSITION_TIMEOUT)),
        (BulkState.PROCESSING, ItemState.ACCEPTED, TransferState.COMMITTED, DueMessage(70_001, ITEM_COMMITTED)),
    ],
)
def test_an_item_waits_for_what_its_rows_say(
    bulk: BulkState, item: ItemState, transfer: TransferState | None, expected: object
) -> None:
    assert owes(bulk, item, transfer) == expected


def test_the_reason_of_a_refusal_is_kept() -> None:
    """#14 is answered to a refusal, #18 to a failure: the step's reason says which of them position is asked for."""
    owed = owes(BulkState.PROCESSING, ItemState.ACCEPTED, TransferState.RECEIVED_ERROR, POSITION_REJECT.action)
    assert owed == DueMessage(70_001, POSITION_REJECT)


@pytest.mark.parametrize(("bulk", "item"), list(itertools.product(OPEN_BULKS, sorted(OPEN_ITEM_STATES))))
def test_no_open_item_waits_for_nothing(bulk: BulkState, item: ItemState) -> None:
    """Every state of every transfer leads somewhere, and what is on its way is what timeout pushes forward (D17)."""
    for transfer in TransferState:
        owed = owes(bulk, item, transfer)
        if isinstance(owed, DueMessage):
            topic = TOPIC_BULK_PROCESSING if has_ended(transfer) else TOPIC_TRANSFER_POSITION
            assert owed.combination.topic == topic or transfer is TransferState.RESERVED
            assert owed.transfer_key == 70_001
        else:
            assert transfer is TransferState.RESERVED
        if transfer not in (TransferState.RESERVED, TransferState.RECEIVED_PREPARE):
            assert owed == due_message(70_001, transfer, "bulk-abort", ERROR)
    assert BULK_TRANSITIONS[bulk], "an open bulk has a step left"


def test_an_answer_is_published_only_when_it_can_be_judged() -> None:
    put, post = KeptRequestKind.PUT_BULK, KeptRequestKind.POST_BULK
    unknown, known, ready = Standing(False, False), Standing(True, False), Standing(True, True)
    assert judge_request(post, unknown, post_is_kept=True) is RequestVerdict.PUBLISH
    assert judge_request(put, ready, post_is_kept=False) is RequestVerdict.PUBLISH
    assert judge_request(put, known, post_is_kept=False) is RequestVerdict.LATER
    assert judge_request(put, unknown, post_is_kept=True) is RequestVerdict.LATER
    # An answer to what nobody has posted is refused now, as it would have been.
    assert judge_request(put, unknown, post_is_kept=False) is RequestVerdict.PUBLISH


def test_kinds_know_what_they_are_about() -> None:
    assert {kind for kind in KeptRequestKind if kind.is_post} == {
        KeptRequestKind.POST_BULK,
        KeptRequestKind.POST_SINGLE,
    }
    assert {kind for kind in KeptRequestKind if kind.is_single} == {
        KeptRequestKind.POST_SINGLE,
        KeptRequestKind.PUT_SINGLE,
        KeptRequestKind.PUT_SINGLE_ERROR,
    }
