"""The two messages that several handlers send about one transfer: to position, and to bulk-processing."""

from db.transfers import OpenItemRow
from domain.combinations import POSITION_COMMIT, TOPIC_BULK_PROCESSING, TOPIC_TRANSFER_POSITION, Combination
from domain.fspiop_errors import FspiopError
from domain.timeout import DueMessage
from handlers.handler import Output
from schemas.messages import BulkProcessing, TransferPosition


def account_key(account_id: int) -> bytes:
    """The key of an account on topic-transfer-position: one account, one partition, one writer."""
    return str(account_id).encode()


def item_news(
    combination: Combination,
    bulk_transfer_id: bytes,
    transfer_key: int,
    transfer_id: bytes,
    error: FspiopError | None = None,
) -> Output:
    """Tell bulk-processing what became of an item."""
    message = BulkProcessing(
        combination.type,
        combination.action,
        combination.status,
        bulk_transfer_id,
        transfer_key,
        transfer_id,
        None if error is None else error.code,
        None if error is None else error.description,
    )
    return Output(TOPIC_BULK_PROCESSING, bulk_transfer_id, message)


def to_position(
    combination: Combination, account_id: int, bulk_transfer_id: bytes, transfer_key: int, transfer_id: bytes
) -> Output:
    """Ask position for the move that the transfer's state calls for; the account is the one that will move."""
    message = TransferPosition(
        combination.type, combination.action, combination.status, bulk_transfer_id, transfer_key, transfer_id
    )
    return Output(TOPIC_TRANSFER_POSITION, account_key(account_id), message)


def due_output(message: DueMessage, row: OpenItemRow, bulk_transfer_id: bytes) -> Output:
    """The message that an open item's state calls for, to whoever it is for."""
    combination = message.combination
    if combination.topic == TOPIC_TRANSFER_POSITION:
        account = row.payee_account if combination == POSITION_COMMIT else row.payer_account
        assert account is not None, "a transfer that holds money has both its accounts"
        return to_position(combination, account, bulk_transfer_id, row.transfer_key, row.transfer_id)
    return item_news(combination, bulk_transfer_id, row.transfer_key, row.transfer_id, message.error)
