"""Which log a Kafka topic is: the cluster's id and the topic's own, which it keeps for life.

Kafka gives a topic that is deleted and made again another id, and a cluster that was set up anew has another one; a topic
that gets more partitions stays the same log. Brokers older than 2.8 know no ids of topics: then the cluster's alone is told.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient


def read_log_id(admin: AdminClient, topic: str, timeout_s: float, result: Callable[["Future[Any]", str], Any]) -> str:
    """`cluster id/topic id`; `result` waits for an answer and translates what goes wrong."""
    asked = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
    described = result(asked[topic], f"describe {topic}")
    cluster = result(admin.describe_cluster(request_timeout=timeout_s), "describe the cluster")
    return f"{cluster.cluster_id}/{described.topic_id}"
