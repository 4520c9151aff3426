"""Whether an FSP's POST lies in the object store, and the handler that would record it has not come to it yet.

A GET may overtake the POST before it: then nothing stands in the database, and the sender, and nobody else, is told
RECEIVED. The handler's progress says, per partition, how far by the edge's clock it has read.
"""

from collections.abc import Mapping

from handlers.handler import SlowDown
from object_store.envelope import CorruptRequest, request_prefix, unpack_request
from object_store.interface import ObjectMissing, ObjectStore, ObjectStoreUnavailable
from stream.interface import Stream, partition_of


def has_unread_post(
    store: ObjectStore,
    stream: Stream,
    topic: str,
    entity_id: bytes,
    source: str,
    read_ms: Mapping[int, int],
    *,
    only_in_posts: bytes,
) -> bool:
    """Whether a POST of `source` about this id is kept that was received after what `topic`'s reader has read.

    `read_ms` is the reader's progress by partition (db/progress.py); `only_in_posts` stands in the body of every POST and of
    no other request, so that the PUT of a stranger does not look like one. Raises SlowDown when the store is away.
    """
    partition = partition_of(entity_id, stream.partitions(topic))
    try:
        for key in store.keys(request_prefix(entity_id)):
            request = unpack_request(store.get(key))
            is_post = only_in_posts in request.body
            if is_post and request.source == source and request.received_at_ms > read_ms.get(partition, 0):
                return True
    except ObjectStoreUnavailable as away:
        raise SlowDown(str(away)) from away
    except (ObjectMissing, CorruptRequest):
        return False
    return False
