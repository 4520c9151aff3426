"""The handlers: which of them share a process, how much they take at once, and when they stop."""

from typing import Annotated

from pydantic import BaseModel, Field, field_validator

from operations.settings.types import Bytes, Count, Milliseconds

# The handlers that share a process in `bulk-switch up`, a group per process. The two that decide about money and outcomes
# have one each. Four processes took 4–20 % less CPU a transfer than two, whose threads wait for each other's interpreter.
_HANDLER_GROUPS = (
    "bulk-prepare,bulk-fulfil,bulk-get,timeout prepare,fulfil position,notification bulk-processing"
    " single-prepare,single-position,single-fulfil,single-notification,transfer-get"
)


class LoopSettings(BaseModel):
    """The loop (handlers/loop.py) and its processes."""

    handler_groups: str = Field(_HANDLER_GROUPS, description="groups of handlers, one process each: a,b c,d")
    # Items in one transaction: statements cost the same for any number, and locks are held for its time.
    batch_items: Count = 1_000
    # How long a handler waits for the first record of a batch before it looks after other things.
    batch_wait_ms: Milliseconds = 200
    # Encoded outputs of one batch, kept in its progress row: more inputs wait for the next batch.
    batch_output_bytes_max: Bytes = 16 * 1024 * 1024
    # How long a transaction stays open for the broker's acks of the batch before; then it is rolled back and retried.
    acks_wait_ms: Milliseconds = 5_000
    # How often the timeout handler looks for what is due; it must act within a second of an expiration.
    tick_ms: Milliseconds = 250
    # A deploy that cannot read its inputs stops instead of dead-lettering everything: so many in a row, or this share.
    dead_letters_in_a_row_max: Count = 100
    dead_letter_ratio_max: Annotated[float, Field(gt=0, le=1)] = 0.1
    # How long a process may take to finish its work after SIGTERM; then it is killed, which loses nothing.
    stop_wait_ms: Milliseconds = 10_000

    @field_validator("handler_groups")
    @classmethod
    def _some_handlers(cls, value: str) -> str:
        names = value.replace(",", " ").split()
        if not names:
            raise ValueError("names no handler")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} more than once")
        return value

    @property
    def groups(self) -> list[list[str]]:
        """The handlers of each process."""
        return [[name for name in group.split(",") if name] for group in self.handler_groups.split()]
