"""The topic catalogue: for each topic who writes it, who reads it, what stands on it, its key, partitions and retention.

Topics are made from this list and from nothing else. Every topic that a handler reads has a dead-letter topic beside it.
"""

from dataclasses import dataclass

from domain import combinations
from schemas.messages import (
    BulkFulfil,
    BulkGet,
    BulkPrepare,
    BulkProcessing,
    DeadLetter,
    Message,
    Notification,
    SingleFulfil,
    SingleNotification,
    SinglePosition,
    SinglePrepare,
    TransferFulfil,
    TransferGet,
    TransferPosition,
    TransferPrepare,
)

DAY_MS = 24 * 60 * 60 * 1000
DEAD_LETTER_SUFFIX = "-dead-letter"


@dataclass(frozen=True, slots=True)
class Topic:
    """One line of the catalogue."""

    name: str
    producers: tuple[str, ...]
    consumer: str
    message: type[Message]
    key: str
    partitions: int = 6
    retention_ms: int = 7 * DAY_MS


_WORK_TOPICS = (
    Topic(combinations.TOPIC_BULK_PREPARE, ("adapter",), "bulk-prepare", BulkPrepare, "bulkTransferId"),
    Topic(combinations.TOPIC_TRANSFER_PREPARE, ("bulk-prepare",), "prepare", TransferPrepare, "bulkTransferId"),
    Topic(
        combinations.TOPIC_TRANSFER_POSITION,
        ("prepare", "fulfil", "timeout"),
        "position",
        TransferPosition,
        "account id: the payer's for prepare, reject, abort and timeout, the payee's for commit",
    ),
    Topic(
        combinations.TOPIC_BULK_PROCESSING,
        ("prepare", "position", "timeout"),
        "bulk-processing",
        BulkProcessing,
        "bulkTransferId",
    ),
    Topic(combinations.TOPIC_BULK_FULFIL, ("adapter",), "bulk-fulfil", BulkFulfil, "bulkTransferId"),
    Topic(combinations.TOPIC_TRANSFER_FULFIL, ("bulk-fulfil",), "fulfil", TransferFulfil, "bulkTransferId"),
    Topic(combinations.TOPIC_BULK_GET, ("adapter",), "bulk-get", BulkGet, "bulkTransferId"),
    Topic(
        combinations.TOPIC_NOTIFICATION,
        ("bulk-prepare", "bulk-processing", "bulk-fulfil", "bulk-get"),
        "notification",
        Notification,
        "bulkTransferId",
    ),
    Topic(combinations.TOPIC_SINGLE_PREPARE, ("adapter",), "single-prepare", SinglePrepare, "transferId"),
    Topic(
        combinations.TOPIC_SINGLE_POSITION,
        ("single-prepare", "single-fulfil", "timeout"),
        "single-position",
        SinglePosition,
        "account id: the payer's for prepare, abort and timeout, the payee's for commit",
    ),
    Topic(combinations.TOPIC_SINGLE_FULFIL, ("adapter",), "single-fulfil", SingleFulfil, "transferId"),
    Topic(combinations.TOPIC_TRANSFER_GET, ("adapter",), "transfer-get", TransferGet, "transferId"),
    Topic(
        combinations.TOPIC_SINGLE_NOTIFICATION,
        ("single-prepare", "single-position", "single-fulfil", "transfer-get", "timeout"),
        "single-notification",
        SingleNotification,
        "transferId",
    ),
)


def dead_letter_topic(topic: str) -> str:
    return topic + DEAD_LETTER_SUFFIX


def _dead_letters_of(topic: Topic) -> Topic:
    return Topic(
        dead_letter_topic(topic.name),
        producers=(topic.consumer,),
        consumer="operators",
        message=DeadLetter,
        key=topic.key,
        partitions=1,
        retention_ms=90 * DAY_MS,
    )


CATALOGUE: dict[str, Topic] = {topic.name: topic for work in _WORK_TOPICS for topic in (work, _dead_letters_of(work))}
