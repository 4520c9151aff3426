"""The rules of a scheme, and for how long it keeps what has ended."""

from pydantic import BaseModel

from operations.settings.types import Days, Milliseconds


class SchemeSettings(BaseModel):
    """Rules that every FSP of the scheme must know."""

    # Funds must not stay reserved for longer than a scheme means: an expiration beyond this is refused (3100).
    expiration_horizon_ms: Milliseconds = 30 * 24 * 60 * 60 * 1000
    # Reserve small amounts first, so that more transfers fit under a limit (BULK-11); results keep the request's order.
    ascending_amount_order: bool = False
    # How far a payee's clock may run ahead of ours in completedTimestamp.
    completed_timestamp_ahead_ms: Milliseconds = 5_000
    # How old completedTimestamp may be; empty: any age, because a bulk takes as long as its expiration allows.
    completed_timestamp_age_ms: Milliseconds | None = None


class RetentionSettings(BaseModel):
    """What `bulk-switch retention` removes."""

    # Callbacks that are delivered or dead, with their attempts; a dead one can be sent again as long as it is kept.
    callbacks_kept_days: Days = 90
    # Requests and results of bulks and transfers that have ended; after it a GET shows the state without the list.
    objects_kept_days: Days = 90
    # Requests that never became a bulk or a transfer: twice the time for which a topic keeps a record that was read.
    orphans_kept_days: Days = 14
    # As long as the dead-letter topics of the catalogue are kept by a broker.
    dead_letters_kept_days: Days = 90
