"""What no stream takes: a record that is larger than what every stream can carry."""

from stream.interface import NewRecord, StreamError

# Key, value and headers of one record. Kafka's own default is 1,048,588 bytes for a batch with everything around it, and
# its client sends batches of up to 1,000,000; below this no setting of a topic or a broker has to be changed.
RECORD_BYTES_MAX = 950_000
# What the Kafka client sends at once to a partition, and what a topic must take: both are the defaults of either side,
# said aloud, because a topic or a broker that was given less would refuse the largest frames for ever.
KAFKA_BATCH_BYTES_MAX = 1_000_000
KAFKA_MAX_MESSAGE_BYTES = 1_048_588


class RecordTooLarge(StreamError):
    """The record is larger than RECORD_BYTES_MAX; whoever makes records bounds them, so this is a bug of the caller."""


def check_size(record: NewRecord) -> None:
    """Raises RecordTooLarge."""
    size_bytes = len(record.key) + len(record.value)
    if record.headers:
        size_bytes += sum(len(name) + len(value) for name, value in record.headers)
    if size_bytes > RECORD_BYTES_MAX:
        raise RecordTooLarge(f"a record for {record.topic} has {size_bytes} bytes, allowed are {RECORD_BYTES_MAX}")
