"""A process of handlers: one thread and one loop per handler, until SIGTERM, or until one of them crashes.

Each handler can be a process of its own; several share one on small machines, and then share an engine, too. A loop that
ends with an exception ends the process: the others finish their batch, and a supervisor starts everything again. A second
thread that goes on without the first would look alive and do half of the work.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from sqlalchemy import Engine

from domain.bulk_fulfil import FulfilRules
from domain.bulk_prepare import BulkRules
from handlers.bulk_fulfil import BulkFulfilHandler
from handlers.bulk_get import BulkGetHandler
from handlers.bulk_prepare import BulkPrepareHandler
from handlers.bulk_processing import BulkProcessingHandler
from handlers.fulfil import FulfilHandler
from handlers.handler import Crash, Handler
from handlers.loop import HandlerLoop, LoopLimits, OpenConsumer
from handlers.notification import NotificationHandler
from handlers.position import PositionHandler
from handlers.prepare import PrepareHandler
from handlers.single_fulfil import SingleFulfilHandler
from handlers.single_notification import SingleNotificationHandler
from handlers.single_position import SinglePositionHandler
from handlers.single_prepare import SinglePrepareHandler
from handlers.timeout import TimeoutHandler
from handlers.tracing import Tracing
from handlers.transfer_get import TransferGetHandler
from object_store.interface import ObjectStore
from stream.interface import Consumer, OnAssign, OnRevoke, Stream
from stream.ticks import tick_consumer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HandlerWorld:
    """Everything handlers need, as plain values. The engine's pool holds three connections per handler of the process."""

    engine: Engine
    stream: Stream
    object_store: ObjectStore
    hub_name: str
    bulk_rules: BulkRules = field(default_factory=BulkRules)
    fulfil_rules: FulfilRules = field(default_factory=FulfilRules)
    loop_limits: LoopLimits = field(default_factory=LoopLimits)
    tracing: Tracing | None = None
    tick_ms: int = 250


_MAKERS: Mapping[str, Callable[[HandlerWorld], Handler]] = {
    "bulk-prepare": lambda world: BulkPrepareHandler(world.object_store, world.bulk_rules, world.hub_name),
    "prepare": lambda _: PrepareHandler(),
    "position": lambda _: PositionHandler(),
    "bulk-processing": lambda world: BulkProcessingHandler(world.object_store),
    "bulk-fulfil": lambda world: BulkFulfilHandler(world.object_store, world.fulfil_rules),
    "fulfil": lambda _: FulfilHandler(),
    "timeout": lambda _: TimeoutHandler(),
    "bulk-get": lambda world: BulkGetHandler(world.object_store, world.stream),
    "notification": lambda world: NotificationHandler(world.hub_name),
    # The lane of the single transfers: the same work, on topics of their own.
    "single-prepare": lambda world: SinglePrepareHandler(world.bulk_rules.expiration_horizon_ms, world.hub_name),
    "single-position": lambda _: SinglePositionHandler(),
    "single-fulfil": lambda _: SingleFulfilHandler(),
    "single-notification": lambda world: SingleNotificationHandler(world.object_store, world.hub_name),
    "transfer-get": lambda world: TransferGetHandler(world.object_store, world.stream),
}

HANDLER_NAMES = tuple(_MAKERS)
# What a loop holds at most at one time: its transaction, its instance number, and a second transaction on assignment.
CONNECTIONS_PER_HANDLER = 3
# A loop that has not turned for this long hangs, whatever its thread says.
STUCK_AFTER_S = 60.0


def make_loop(name: str, world: HandlerWorld) -> HandlerLoop:
    """The loop of one handler; raises KeyError for a name that is none of HANDLER_NAMES."""
    handler = _MAKERS[name](world)
    return HandlerLoop(handler, world.engine, world.stream, world.loop_limits, _opener(handler, world), world.tracing)


def _opener(handler: Handler, world: HandlerWorld) -> OpenConsumer:
    if isinstance(handler, TimeoutHandler):

        def open_ticks(_: int, on_assign: OnAssign, on_revoke: OnRevoke) -> Consumer:
            return tick_consumer(world.engine, handler.name, world.tick_ms, on_assign, on_revoke)

        return open_ticks

    def open_topic(instance: int, on_assign: OnAssign, on_revoke: OnRevoke) -> Consumer:
        return world.stream.consumer(handler.name, handler.topic, instance, on_assign, on_revoke)

    return open_topic


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a process does its work: per handler what is wrong with it; nothing, if it is ready.

    `spares` are the handlers that wait, in good order, for a partition: there are more processes than partitions.
    """

    trouble: Mapping[str, str]
    spares: Sequence[str] = ()

    @property
    def ready(self) -> bool:
        return not self.trouble


class HandlerHost:
    """Runs the loops of a process."""

    def __init__(self, names: Sequence[str], world: HandlerWorld) -> None:
        self._loops = [make_loop(name, world) for name in names]
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Ask every loop to finish its batch and leave; safe from a signal handler."""
        for loop in self._loops:
            loop.stop()

    def run(self) -> None:
        """Run until `stop`, or until a loop fails; raises what the first one failed with."""
        threads = [
            threading.Thread(target=self._run_loop, args=(loop,), name=loop.handler.name) for loop in self._loops
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            # A join without a timeout would keep the main thread from its signal handlers on some platforms.
            while thread.is_alive():
                thread.join(timeout=0.5)
        if self._failure is not None:
            raise self._failure

    def readiness(self) -> Readiness:
        """A consumer that owns nothing is not ready (D28), unless the group has more members than partitions."""
        trouble: dict[str, str] = {}
        spares: list[str] = []
        for loop in self._loops:
            silence_s = time.monotonic() - loop.last_turn_s
            if silence_s > STUCK_AFTER_S:
                trouble[loop.handler.name] = f"has not turned for {silence_s:.0f} s"
            elif not loop.owned() and loop.is_spare():
                spares.append(loop.handler.name)
            elif not loop.owned():
                trouble[loop.handler.name] = "owns no partition"
        return Readiness(trouble, spares)

    def _run_loop(self, loop: HandlerLoop) -> None:
        try:
            loop.run()
        except BaseException as error:
            self._failure = self._failure or error
            self.stop()


def run_handlers(
    names: Sequence[str], world: HandlerWorld, on_start: Callable[[HandlerHost], None] | None = None
) -> None:
    """Run handlers until SIGTERM or SIGINT. Raises Crash, or the exception of a bug, when one of them fails.

    `on_start` is given the host before the loops start, for whoever wants to ask it for its readiness.
    """
    host = HandlerHost(names, world)

    def on_signal(signum: int, _: FrameType | None) -> None:
        _log.info("%s: finishing the batches at hand", signal.Signals(signum).name)
        host.stop()

    before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        if on_start is not None:
            on_start(host)
        host.run()
    except Crash as crash:
        _log.critical("stopping: %s", crash)
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
