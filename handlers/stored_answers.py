"""What an ended bulk was told, told again to who asks: the very bytes, or the state alone once retention has removed them.

A message is about to name an object that was kept long ago, so the object is made fresh first: retention removes nothing
that is fresh (object_store/content.py), and so the bytes are still there when the callback is sent.
"""

from db.results import BulkResult
from domain.states import BULK_API_STATES, BulkState
from handlers.handler import SlowDown
from handlers.notices import put_content_or_slow_down
from object_store.content import renew_content
from object_store.interface import ObjectStore, ObjectStoreUnavailable
from schemas.fspiop.results import state_body


def told_list(store: ObjectStore, result: BulkResult, state: BulkState) -> str:
    """The content that a GET is answered with."""
    return _renewed(store, result.list_content) or _state_alone(store, state)


def told_callback(store: ObjectStore, result: BulkResult, state: BulkState) -> tuple[str, str]:
    """The final callback and its content; what is left of an error that was told is a PUT with the state it led to."""
    content = _renewed(store, result.callback_content)
    return ("PUT", _state_alone(store, state)) if content is None else (result.callback, content)


def _renewed(store: ObjectStore, key: str | None) -> str | None:
    try:
        return key if key is not None and renew_content(store, key) else None
    except ObjectStoreUnavailable as away:
        raise SlowDown(str(away)) from away


def _state_alone(store: ObjectStore, state: BulkState) -> str:
    return put_content_or_slow_down(store, state_body(BULK_API_STATES[state]))
