"""What a handler is: messages in, rows and messages out, in a transaction that it neither opens nor commits.

Trouble has three kinds, and each is an exception:

    SlowDown    the batch is rolled back and tried again after a pause (a lost key race, a store that is away);
                TooMuch, a kind of it, with fewer records (a store that is slow)
    BadMessage  this one message cannot be worked on: it becomes a dead letter, the rest of the batch goes on
    Crash       going on would harm: the process stops with a clear message and its supervisor starts it again

Whatever else is raised is a bug; the loop looks for the message that causes it and treats that one as bad.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection

from schemas.messages import Message


class SlowDown(Exception):
    """Roll back, wait, try the batch again."""


class TooMuch(SlowDown):
    """Roll back, wait, try again with half of the batch: what it waits for is too slow for all of it."""


class BadMessage(Exception):
    """This message is a dead letter; the text says why."""


class Crash(Exception):
    """Stop the process; the text says why, for the one who will be woken."""


class Output(NamedTuple):
    """A message to send once the transaction is committed; `key` decides the partition and shares a frame."""

    topic: str
    key: bytes
    message: Message


class Handler(Protocol):
    """One stage of the pipeline: reads `topic` as `name`, and sees single messages of class `message`."""

    name: str
    topic: str
    message: type[Any]

    def weight(self, message: Any) -> int:
        """How many items the message will make work for; a batch is filled up to `batch_items` of them."""

    def handle(self, tx: Connection, messages: Sequence[Any]) -> list[Output]:
        """Load, decide, save: a constant number of statements for any number of messages. Never commits.

        The messages stand in the order in which they were read; repeats are normal and change nothing.
        Raises SlowDown, Crash; BadMessage only when called with a single message.
        """

    def give_up(self, tx: Connection, message: Any, reason: str) -> list[Output]:
        """The message becomes a dead letter: end what it was about through the state tables, and say so.

        Raises Crash where money is already on its way, because then nobody may give up.
        """
