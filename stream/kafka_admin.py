"""Questions to a Kafka cluster and orders to it, with patience where the client has none."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]  # public, not marked as exported

from stream.interface import StreamError, StreamUnavailable
from stream.kafka_errors import error_of, translated
from stream.kafka_trouble import ConnectionTrouble

CLIENT_LOG = logging.getLogger("stream.kafka.client")

_ASK_AGAIN_S = 0.05

_Answer = TypeVar("_Answer")


class KafkaAdmin:
    """An admin client that is made when it is first asked for. `prefix` stands before every topic's and group's name."""

    def __init__(self, settings: dict[str, Any], prefix: str, request_timeout_s: float) -> None:
        self._settings = settings
        self._client: AdminClient | None = None
        self._trouble = ConnectionTrouble()
        self.prefix = prefix
        self.request_timeout_s = request_timeout_s

    def client(self) -> AdminClient:
        if self._client is None:
            # The admin client takes its logger beside the settings.
            settings = {name: value for name, value in self._settings.items() if name != "logger"}
            self._client = AdminClient(settings | {"error_cb": self._trouble.note}, logger=CLIENT_LOG)
        return self._client

    def close(self) -> None:
        self._client = None

    def result(self, future: "Future[Any]", what: str) -> Any:
        """What the cluster answers; raises what its refusal means, StreamUnavailable without an answer."""
        try:
            return future.result(timeout=2 * self.request_timeout_s)
        except TimeoutError as late:
            raise StreamUnavailable(self._with_reason(f"{what}: no answer")) from late
        except KafkaException as exception:
            raise self.meaning(exception, what) from exception

    def metadata(self, what: str, topic: str | None = None) -> ClusterMetadata:
        """The cluster's id, brokers and topics, or one topic, which may have an error; raises StreamUnavailable."""
        try:
            if topic is None:
                return self.client().list_topics(timeout=self.request_timeout_s)
            return self.client().list_topics(topic, timeout=self.request_timeout_s)
        except KafkaException as exception:
            raise self.meaning(exception, what) from exception

    def meaning(self, exception: KafkaException, what: str) -> StreamError:
        """The stream's exception; one about brokers that cannot be reached says why, if the client knows."""
        error = translated(error_of(exception), what)
        return StreamUnavailable(self._with_reason(str(error))) if isinstance(error, StreamUnavailable) else error

    def _with_reason(self, text: str) -> str:
        # The client calls its callbacks when it is polled, and this one never is otherwise.
        self.client().poll(0)
        return self._trouble.added_to(text)

    def patiently(
        self, ask: Callable[[], _Answer], *, also: type[StreamError] = StreamUnavailable, wait_s: float = 0
    ) -> _Answer:
        """Ask again for `wait_s`, or for as long as a request may take if that is longer.

        The client does not, when a partition's leader has just changed.
        """
        deadline = time.monotonic() + max(self.request_timeout_s, wait_s)
        while True:
            try:
                return ask()
            except (StreamUnavailable, also):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_ASK_AGAIN_S)
