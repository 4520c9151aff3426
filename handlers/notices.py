"""What every handler that tells somebody something needs: bytes kept under their hash, and the message that names them."""

from domain.combinations import TOPIC_NOTIFICATION, Combination
from handlers.handler import Output, SlowDown
from object_store.content import put_content
from object_store.interface import ObjectStore, ObjectStoreUnavailable
from schemas.messages import Notification


def put_content_or_slow_down(store: ObjectStore, body: bytes) -> str:
    """Keep the bytes and return their key; a store that is away slows the batch down."""
    try:
        return put_content(store, body)
    except ObjectStoreUnavailable as away:
        raise SlowDown(str(away)) from away


def notice(
    combination: Combination,
    bulk_transfer_id: bytes,
    to: str,
    callback: str,
    content: str,
    *,
    request_id: bytes | None = None,
    not_after_ms: int | None = None,
) -> Output:
    """Tell `to`: POST, PUT or PUT_ERROR with the body under `content`.

    With `request_id` it answers that request; without, it is the forward or the final callback of the bulk.
    """
    message = Notification(
        combination.type,
        combination.action,
        combination.status,
        bulk_transfer_id,
        to,
        callback,
        content,
        request_id,
        not_after_ms,
    )
    return Output(TOPIC_NOTIFICATION, bulk_transfer_id, message)
