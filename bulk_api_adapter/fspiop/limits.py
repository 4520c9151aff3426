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
    # Each of them may hold a body in memory, and their bodies together are no larger than this as they came.
    requests_in_flight_max: int = 64
    request_bytes_in_flight_max: int = 64 * 1024 * 1024
    # Of both, what only PUTs may take: an answer frees funds, and must get in where new work does not (`reception`).
    answers_in_flight_min: int = 16
    answer_bytes_in_flight_min: int = 16 * 1024 * 1024
    # What a payer may have in flight, and for how long the figures of it hold (`in_flight`).
    in_flight_transfers_per_payer_max: int = 100_000
    in_flight_single_transfers_min: int = 1_000
    # What all payers may have in flight together; past it those are refused that have more than their even share.
    in_flight_transfers_max: int = 500_000
    in_flight_single_transfers_of_all_min: int = 50_000
    # Requests of any edge that stand unread in one of the topics for new work; past it that topic takes no more.
    unread_requests_max: int = 20_000
    in_flight_refresh_ms: int = 500
    # How long a reading waits for the ends of the topics; without them what was unread stays so.
    in_flight_ends_wait_ms: int = 1_000
    in_flight_stale_ms: int = 10_000
    # Of a single transfer; that of a bulk is for its handler to judge.
    completed_timestamp_ahead_ms: int = 5_000
    # Threads that write to the object store; a write that hangs keeps its thread, and no more than these.
    store_writes_max: int = 8
    # More of them for PUTs alone.
    answer_writes_max: int = 4
    # A part that has failed so often in a row is probed by one request at a time (`circuit`).
    failures_until_probing: int = 8
    probe_interval_ms: int = 500
    retry_after_s_max: int = 10
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
        if self.in_flight_transfers_max < self.items_max + self.in_flight_single_transfers_of_all_min:
            raise ValueError(
                "in_flight_transfers_max must not be less than items_max and in_flight_single_transfers_of_all_min"
                " together, else no bulk gets in"
            )
        if self.request_bytes_in_flight_max - self.answer_bytes_in_flight_min < self.body_bytes_max:
            raise ValueError(
                "request_bytes_in_flight_max must leave room for body_bytes_max beside answer_bytes_in_flight_min,"
                " else the largest bulk is never taken in"
            )
        if self.answers_in_flight_min >= self.requests_in_flight_max:
            raise ValueError("answers_in_flight_min must be less than requests_in_flight_max")
        if self.in_flight_refresh_ms > self.in_flight_stale_ms:
            raise ValueError("in_flight_refresh_ms must not exceed in_flight_stale_ms")
