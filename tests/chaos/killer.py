"""The seeded killer: does to a running world what a disturbance of the plan says.

    kill_handler, kill_edge, kill_deliverer   kill -9 as soon as the victim runs; its supervisor starts it again
    kill_handler_after_commit                 kill -9 in the moment in which a handler's progress is seen: its outputs may
                                              not be on their way yet
    hold_handler                              SIGSTOP until its session is over and its partitions are another's; SIGCONT
    restart_kafka                             kill -9 of the broker, or of one node of three, which comes back after a while
    kill_postgres, restart_postgres           kill -9 of every process, or a graceful stop; and a start
    s3_down                                   kill -9, or SIGSTOP so that requests hang; and back after a while

A disturbance returns when its part is back; whether its victim is well again nobody waits for, so that the next one may
meet a switch that is still recovering.
"""

import signal
import threading
import time

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.chaos.plan import Disturbance, Kind
from tests.chaos.processes import EDGE
from tests.chaos.world import ChaosWorld

# How long a commit is waited for, and parts stay away at the longest.
_COMMIT_WAIT_S = 1.0
_AWAY_MAX_S = 4.0
# A session is over when its time is up and somebody has looked.
_HOLD_MARGIN_S = 1.5


class Killer:
    """Disturbs one world; everything random about it was decided by the plan."""

    def __init__(self, world: ChaosWorld) -> None:
        self._world = world
        # Never set: its wait is a pause.
        self._pause = threading.Event()

    def pause(self, seconds: float) -> None:
        """Let messages flow."""
        self._pause.wait(seconds)

    def disturb(self, one: Disturbance) -> None:
        self.pause(one.pause_ms / 1000)
        match one.kind:
            case Kind.KILL_HANDLER:
                self._kill(self._handler(one))
            case Kind.KILL_HANDLER_AFTER_COMMIT:
                victim = self._handler(one)
                self._wait_for_commit(self._world.processes.described[victim].handlers)
                self._kill(victim)
            case Kind.KILL_EDGE:
                self._kill(EDGE)
            case Kind.KILL_DELIVERER:
                deliverers = self._world.processes.deliverers
                self._kill(deliverers[int(one.victim * len(deliverers))])
            case Kind.HOLD_HANDLER:
                self._hold(self._handler(one))
            case Kind.RESTART_KAFKA:
                self._restart_kafka(one)
            case Kind.KILL_POSTGRES:
                self._world.parts.postgres.kill()
                self.pause(one.length)
                self._world.parts.postgres.start()
            case Kind.RESTART_POSTGRES:
                self._world.parts.postgres.stop()
                self._world.parts.postgres.start()
            case Kind.S3_DOWN:
                self._take_s3_down(one)

    def _handler(self, one: Disturbance) -> str:
        handlers = self._world.processes.handlers
        return handlers[int(one.victim * len(handlers))]

    def _kill(self, name: str) -> None:
        self._world.processes.send(name, signal.SIGKILL)

    def _wait_for_commit(self, handlers: tuple[str, ...]) -> None:
        query = text("SELECT sum(next_offset) FROM handler_progress WHERE handler = ANY(CAST(:names AS text[]))")
        deadline = time.monotonic() + _COMMIT_WAIT_S
        try:
            with self._world.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                before = connection.execute(query, {"names": list(handlers)}).scalar_one()
                while connection.execute(query, {"names": list(handlers)}).scalar_one() == before:
                    if time.monotonic() > deadline:
                        return
        except DBAPIError:
            # PostgreSQL was killed before, and this connection with it: whoever is killed now may be anywhere.
            return

    def _hold(self, name: str) -> None:
        self._world.processes.send(name, signal.SIGSTOP)
        self.pause(self._world.settings.kafka_session_timeout_ms / 1000 + _HOLD_MARGIN_S)
        self._world.processes.send(name, signal.SIGCONT)

    def _restart_kafka(self, one: Disturbance) -> None:
        kafka, nodes = self._world.parts.kafka, self._world.parts.kafka_nodes
        if nodes == 1:
            kafka.kill()
            self.pause(one.length * _AWAY_MAX_S)
            kafka.start()
            return
        node = 1 + int(one.victim * nodes)
        kafka.kill_node(node)
        self.pause(one.length * _AWAY_MAX_S)
        kafka.start_node(node)

    def _take_s3_down(self, one: Disturbance) -> None:
        s3 = self._world.parts.s3
        if one.victim < 0.5:
            s3.kill()
            self.pause(one.length * _AWAY_MAX_S)
            s3.start()
            return
        s3.pause()
        self.pause(one.length * _AWAY_MAX_S)
        s3.resume()
