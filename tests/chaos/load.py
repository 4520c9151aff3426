"""Posting the waves of a plan: in the background, each request again and again until the switch has taken it.

So many payments are under way at a time, and no more: the next POST waits until earlier ones have been answered for
good. What the payee never answers is not waited for.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx

from operations.simulated_bulk import timestamp
from operations.simulated_fsp import Receipt
from tests.bulks import PAYEE
from tests.chaos.plan import FAR_MS, Planned, PlannedBulk, entity_id_of, payments_of
from tests.chaos.world import ChaosWorld

_POSTS_AT_ONCE = 8
_RETRY_S = 0.2
# An FSP does not give up before the switch has been away for this long.
_TAKEN_WITHIN_S = 600.0


class NotTaken(AssertionError):
    """A request was refused at the door, or the switch was away for too long."""


class Load:
    """Used as a context. `resends` says per entity how often its POST was repeated because its answer was lost or 503."""

    def __init__(self, world: ChaosWorld, expiration: str, in_flight_max: int) -> None:
        self.resends: dict[str, int] = {}
        self._world = world
        self._expiration = expiration
        self._room = _Room(in_flight_max)
        self._posted: list[Future[None]] = []
        self._posting = ThreadPoolExecutor(_POSTS_AT_ONCE, thread_name_prefix="payer")
        self._given_up = threading.Event()

    def __enter__(self) -> "Load":
        self._world.on_payer_told = self._told
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._room.open_up()
        self._posting.shutdown(cancel_futures=True)

    def post(self, wave: Iterable[Planned]) -> None:
        for planned in wave:
            self._world.payee.behaviours[entity_id_of(planned)] = planned.script.behaviour
            self._posted.append(self._posting.submit(self._post, planned))

    @property
    def taken(self) -> int:
        return len(self.resends)

    def is_all_taken(self) -> bool:
        """Whether everything posted so far was answered 202; raises NotTaken, or what a post has failed with."""
        for one in self._posted:
            if one.done():
                one.result()
        return all(one.done() for one in self._posted)

    def _told(self, receipt: Receipt) -> None:
        if receipt.callback in ("PUT", "PUT_ERROR"):
            self._room.leave(receipt.entity_id)

    def _post(self, planned: Planned) -> None:
        id_ = entity_id_of(planned)
        if planned.script.name != "silent":
            self._room.enter(id_, payments_of(planned))
        self.resends[id_] = self._until_taken(self._request(planned), f"the POST of {planned.script.name} {id_}")

    def _request(self, planned: Planned) -> Callable[[], int]:
        """What sends the request: the same bytes in every run of the seed, but for the time of what is to expire."""
        payer = self._world.payer
        expires_in_ms = planned.script.expires_in_ms
        expiration = self._expiration if expires_in_ms == FAR_MS else timestamp(expires_in_ms)
        if isinstance(planned, PlannedBulk):
            bulk = payer.build(
                planned.script.payee_fsp,
                **planned.script.wishes(),
                expiration=expiration,
                bulk_transfer_id=planned.bulk_transfer_id,
                bulk_quote_id=planned.bulk_quote_id,
                transfer_ids=planned.transfer_ids,
            )
            return lambda: payer.post(bulk).status
        transfer = payer.build_transfer(
            PAYEE, amount=planned.script.amount, expiration=expiration, transfer_id=planned.transfer_id
        )
        return lambda: payer.post_transfer(transfer).status

    def _until_taken(self, send: Callable[[], int], what: str) -> int:
        """How often the request had to be repeated."""
        deadline, resends = time.monotonic() + _TAKEN_WITHIN_S, 0
        while not self._given_up.is_set():
            try:
                status: int | None = send()
            except httpx.TransportError:
                status = None
            if status == httpx.codes.ACCEPTED:
                return resends
            if status not in {None, httpx.codes.SERVICE_UNAVAILABLE} or time.monotonic() > deadline:
                raise NotTaken(f"{what} was answered {status} at the {resends + 1}th time")
            resends += 1
            self._given_up.wait(random.uniform(0.5, 1.0) * _RETRY_S)
        raise NotTaken(f"{what} was given up")


class _Room:
    """How many payments may be under way."""

    def __init__(self, payments_max: int) -> None:
        self._left = payments_max
        self._inside: dict[str, int] = {}
        self._changed = threading.Condition()

    def enter(self, id_: str, payments: int) -> None:
        with self._changed:
            # Who is alone always has room.
            self._changed.wait_for(lambda: self._left >= payments or not self._inside)
            self._left -= payments
            self._inside[id_] = payments

    def leave(self, id_: str) -> None:
        with self._changed:
            self._left += self._inside.pop(id_, 0)
            self._changed.notify_all()

    def open_up(self) -> None:
        with self._changed:
            self._left += 10**9
            self._changed.notify_all()
