"""Whether an FSP's POST lies in the object store, and the handler that would record it has not come to it yet.

A GET may overtake the POST before it: then nothing stands in the database, and the sender, and nobody else, is told
RECEIVED. The handler's progress says, per partition, how far by the edge's clock it has read.

Whoever is let in may send thousands of requests about an id that nobody knows, and all of them are kept. A GET of that id
looks at a few only, the youngest of the first thousand: one that looked at all would never come to its end in the time that
a batch has, and nobody else's GET would be answered either. A sender whose POST hides behind so many is told once the POST
is read.
"""

from collections.abc import Callable, Mapping

from handlers.handler import SlowDown
from object_store.envelope import CorruptRequest, request_prefix, unpack_request
from object_store.interface import ObjectMissing, ObjectStore, ObjectStoreUnavailable
from stream.interface import Stream, partition_of

# Of so many requests that are listed, which is one question to S3, so many are read.
_LISTED_MAX = 1_000
_READ_MAX = 20


def has_unread_post(
    store: ObjectStore,
    stream: Stream,
    topic: str,
    entity_id: bytes,
    source: str,
    read_ms: Mapping[int, int],
    is_post: Callable[[bytes], bool],
) -> bool:
    """Whether a POST of `source` about this id is kept that was received after what `topic`'s reader has read.

    `read_ms` is the reader's progress by partition (db/progress.py). Requests of one id lie together, whatever they are: the
    PUT of a stranger, or the POST of a bulk that has a transfer's id, must not look like one; `is_post` tells by the body.
    Raises SlowDown when the store is away.
    """
    partition = partition_of(entity_id, stream.partitions(topic))
    try:
        listed = store.page(request_prefix(entity_id), "", _LISTED_MAX)
        for one in sorted(listed, key=lambda one: one.put_ms, reverse=True)[:_READ_MAX]:
            try:
                request = unpack_request(store.get(one.key))
            except (ObjectMissing, CorruptRequest):
                continue
            is_unread = request.source == source and request.received_at_ms > read_ms.get(partition, 0)
            if is_unread and is_post(request.body):
                return True
    except ObjectStoreUnavailable as away:
        raise SlowDown(str(away)) from away
    return False
