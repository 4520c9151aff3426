"""The two messages that several handlers send about one transfer: to position, and to bulk-processing."""

from domain.combinations import TOPIC_BULK_PROCESSING, TOPIC_TRANSFER_POSITION, Combination
from domain.fspiop_errors import FspiopError
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
