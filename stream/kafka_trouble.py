"""Why brokers cannot be reached: the client tells it to its error callback only, and its calls just run out of time.

Wrong credentials, a certificate that is not trusted, a name that is not known, a port where nobody listens. None of
them ends the client, which tries again for ever; all may be over in a moment, when a broker or a certificate is replaced. So
they are no errors of their own, but the reason that is told with the next one.
"""

import time

from confluent_kafka import KafkaError

from stream.kafka_errors import ALL_BROKERS_DOWN

# The client's own codes, as opposed to the broker's, begin with an underscore; they are documented and public.
_AUTHENTICATION = KafkaError._AUTHENTICATION  # noqa: SLF001 - see above
_SSL = KafkaError._SSL  # noqa: SLF001 - see above
_RESOLVE = KafkaError._RESOLVE  # noqa: SLF001 - see above
_TRANSPORT = KafkaError._TRANSPORT  # noqa: SLF001 - see above

_REASONS = frozenset({_AUTHENTICATION, _SSL, _RESOLVE, _TRANSPORT})
# A broker that expects TLS or SASL hangs up on a client that speaks plainly, and the client calls that no error.
_HUNG_UP = "they end every connection at once: does the security protocol fit their listener?"
# What was told longer ago may have been mended; the client repeats itself every few seconds.
_KEPT_S = 30.0


class ConnectionTrouble:
    """The last reason; noted by the error callbacks of a client, whichever thread they come on."""

    def __init__(self) -> None:
        self._last: tuple[float, str] | None = None

    def note(self, error: KafkaError) -> None:
        if error.code() in _REASONS:
            # "… (after 308ms in state AUTH_REQ, 4 identical error(s) suppressed)" is no part of the reason.
            self._last = (time.monotonic(), error.str().partition(" (after ")[0])

        elif error.code() == ALL_BROKERS_DOWN and self._recent() is None:
            self._last = (time.monotonic(), _HUNG_UP)

    def added_to(self, text: str) -> str:
        """The text, with the reason if there is a recent one."""
        reason = self._recent()
        return text if reason is None else f"{text} ({reason})"

    def _recent(self) -> str | None:
        last = self._last
        return None if last is None or time.monotonic() - last[0] > _KEPT_S else last[1]
