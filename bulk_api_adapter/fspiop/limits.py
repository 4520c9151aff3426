"""Every limit of the FSPIOP edge, with its unit in its name (BULK-129); past each there is a clear answer."""

from dataclasses import dataclass

from domain.identifiers import ITEMS_PER_BULK
from schemas.fspiop.bodies import ITEMS_MAX
from schemas.fspiop.headers import BODY_BYTES_MAX, HEADER_BYTES_MAX


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """The limits, at FSPIOP's own values where it has some.

    `publish_wait_ms` bounds store and stream together: FSPs give up waiting for a synchronous answer after 3 s.
    """

    body_bytes_max: int = BODY_BYTES_MAX
    header_bytes_max: int = HEADER_BYTES_MAX
    items_max: int = ITEMS_MAX
    # From the headers to the end of the body.
    body_wait_ms: int = 10_000
    publish_wait_ms: int = 2_500
    # Each of them may hold a body in memory.
    requests_in_flight_max: int = 64
    # Threads that write to the object store; a write that hangs keeps its thread, and no more than these.
    store_writes_max: int = 8
    publish_queue_records_max: int = 1_000
    publish_batch_records_max: int = 256
    health_wait_ms: int = 1_000

    def __post_init__(self) -> None:
        if not 1 <= self.items_max < ITEMS_PER_BULK:
            raise ValueError(f"items_max must be between 1 and {ITEMS_PER_BULK - 1}")
