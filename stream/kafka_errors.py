"""What the Kafka client's errors mean here: UnknownTopic, OffsetOutOfRange, a refusal, or "try again later"."""

from confluent_kafka import KafkaError, KafkaException

from stream.interface import OffsetOutOfRange, StreamError, StreamUnavailable, UnknownTopic

# The client's own codes, as opposed to the broker's, begin with an underscore; they are documented and public.
ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - see above
FATAL = KafkaError._FATAL  # noqa: SLF001 - see above
PARTITION_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - see above
_AUTO_OFFSET_RESET = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - see above
_LOG_TRUNCATION = KafkaError._LOG_TRUNCATION  # noqa: SLF001 - see above
_UNKNOWN_TOPIC = KafkaError._UNKNOWN_TOPIC  # noqa: SLF001 - see above
UNKNOWN_PARTITION = KafkaError._UNKNOWN_PARTITION  # noqa: SLF001 - see above

_NO_SUCH_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, _UNKNOWN_TOPIC, UNKNOWN_PARTITION})
_OUT_OF_RANGE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, _AUTO_OFFSET_RESET, _LOG_TRUNCATION})
# What the caller, or whoever runs the cluster, has to change; trying again would go on for ever.
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_CONFIG,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
    }
)


class TopicExists(StreamError):
    """The topic that was to be made is there already."""


def error_of(exception: KafkaException) -> KafkaError:
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def translated(error: KafkaError, what: str) -> StreamError:
    """The stream's exception for a client's error; `what` says what was tried."""
    text = f"{what}: {error.str()}"
    if error.code() in _NO_SUCH_TOPIC:
        return UnknownTopic(text)
    if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
        return TopicExists(text)
    if error.code() in _OUT_OF_RANGE:
        return OffsetOutOfRange(text)
    return StreamError(text) if error.code() in _REFUSED else StreamUnavailable(text)
