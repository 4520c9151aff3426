"""Callbacks: how often and for how long they are tried, how many at once, and where they may go."""

from pydantic import BaseModel, Field, field_validator

from operations.settings.types import Count, Milliseconds
from schemas.callback_addresses import allowed_addresses


class CallbackSettings(BaseModel):
    """The deliverer."""

    # An FSP that is away is tried for hours: whichever of the two bounds is reached first makes the callback dead.
    callback_attempts_max: Count = 200
    callback_age_ms: Milliseconds = 24 * 60 * 60 * 1000
    callback_connect_timeout_ms: Milliseconds = 3_000
    callback_read_timeout_ms: Milliseconds = 8_000
    # One attempt as a whole: an FSP that sends its answer byte by byte holds no slot for longer.
    callback_timeout_ms: Milliseconds = 10_000
    # The pause doubles from the first to the longest, with jitter, so that an FSP that comes back is not run over.
    callback_first_pause_ms: Milliseconds = 500
    callback_longest_pause_ms: Milliseconds = 5 * 60 * 1000
    # Requests at once, for one FSP and for all: a slow FSP fills its own share and delays nobody else.
    callbacks_per_fsp_max: Count = 8
    callbacks_at_once_max: Count = 64
    # Endpoints may lead to the public internet only, lest an FSP's DNS points the hub at itself; what else is said here.
    callback_internal_addresses: str = Field(
        "",
        description="none, loopback, any, or networks like 10.0.0.0/8,fd00::/8; empty: loopback in the embedded world, "
        "none where a database is given",
    )
    # After this a callback that was claimed by a deliverer which died is claimed again.
    callback_lease_ms: Milliseconds = 15_000

    @field_validator("callback_internal_addresses")
    @classmethod
    def _known_addresses(cls, value: str) -> str:
        if value:
            allowed_addresses(value)
        return value
