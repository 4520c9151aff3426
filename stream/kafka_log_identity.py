"""Which log a Kafka topic is: the cluster's id and the topic's own, which it keeps for life.

Kafka gives a topic that is deleted and made again another id, and a cluster that was set up anew has another one; a topic
that gets more partitions stays the same log. Brokers older than 2.8 know no ids of topics: then the cluster's alone is told.

The cluster's id is read from its metadata, and not asked for by describe_cluster: a broker that was away for longer than its
session answers for a moment that there is no broker, and librdkafka (2.16) ends the whole process when it reads that in the
answer to describe_cluster ("Assertion `rko_result' failed").
"""

from confluent_kafka import TopicCollection

from stream.interface import StreamUnavailable
from stream.kafka_admin import KafkaAdmin


def read_log_id(admin: KafkaAdmin, topic: str) -> str:
    """`cluster id/topic id` of a topic, named with its prefix; raises UnknownTopic, StreamUnavailable."""
    asked = admin.client().describe_topics(TopicCollection([topic]), request_timeout=admin.request_timeout_s)
    described = admin.result(asked[topic], f"describe {topic}")
    # The client declares the id as None, which it is before a broker has answered.
    cluster_id: str | None = admin.metadata(f"look {topic} up", topic).cluster_id
    if cluster_id is None:
        raise StreamUnavailable(f"the cluster of {topic} does not tell its id now")
    return f"{cluster_id}/{described.topic_id}"
