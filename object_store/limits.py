"""How long a question to an S3 server may take, and how many are asked at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Limits:
    """How long one attempt may take, to connect and in all, how many there are, and how many connections at once."""

    attempt_timeout_ms: int = 1_100
    connect_timeout_ms: int = 500
    attempts_max: int = 2
    connections_max: int = 32
