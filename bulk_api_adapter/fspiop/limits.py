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
    # What a payer may have in flight, and for how long the figures of it hold (`in_flight`).
    in_flight_transfers_per_payer_max: int = 100_000
    in_flight_single_transfers_min: int = 1_000
    in_flight_refresh_ms: int = 500
    in_flight_stale_ms: int = 10_000
    # Of a single transfer; that of a bulk is for its handler to judge.
    completed_timestamp_ahead_ms: int = 5_000
    # Threads that write to the object store; a write that hangs keeps its thread, and no more than these.
    store_writes_max: int = 8
    publish_queue_records_max: int = 1_000
    publish_batch_records_max: int = 256
    health_wait_ms: int = 1_000

    def __post_init__(self) -> None:
        if not 1 <= self.items_max < ITEMS_PER_BULK:
            raise ValueError(f"items_max must be between 1 and {ITEMS_PER_BULK - 1}")
        if self.in_flight_transfers_per_payer_max < self.items_max + self.in_flight_single_transfers_min:
            raise ValueError(
                "in_flight_transfers_per_payer_max must not be less than items_max and in_flight_single_transfers_min"
                " together, else no bulk gets in"
            )
        if self.in_flight_refresh_ms > self.in_flight_stale_ms:
            raise ValueError("in_flight_refresh_ms must not exceed in_flight_stale_ms")
