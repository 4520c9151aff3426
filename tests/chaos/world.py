"""One run's world: a switch of OS processes on the real parts, and both FSPs in this process.

The FSPs outlive whatever happens to the switch, and each can be away and come back at the same address. They judge
every small callback by the OpenAPI document, and of the large ones some, chosen by their ids, because judging a bulk of
1,000 takes longer than committing it.
"""

import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine

from bulk_api_adapter.admin.provision import provision_fsp
from domain.money import UNITS
from operations.opening import opened_engine, opened_stream
from operations.ports import free_ports
from operations.settings import Settings
from operations.simulated_fsp import (
    Receipt,
    SimulatedEndpoint,
    SimulatedPayee,
    SimulatedPayer,
    callback_endpoints,
    served,
)
from operations.world import prepare
from stream.interface import Stream
from tests.bulks import PAYEE, PAYER
from tests.chaos.parts import Parts
from tests.chaos.processes import RELEASE, Described, Processes, describe
from tests.fspiop_document import DOCUMENT, check_callback
from tests.process.bulk_scripts import COVER, NET_DEBIT_CAP

# What a dead deliverer had under way is soon tried again, and an FSP is tried for as long as it is away.
_SETTINGS: Mapping[str, int] = {
    "callback_connect_timeout_ms": 2_000,
    "callback_read_timeout_ms": 4_000,
    "callback_timeout_ms": 5_000,
    "callback_lease_ms": 6_000,
    "callback_first_pause_ms": 100,
    "callback_longest_pause_ms": 1_000,
    "callback_attempts_max": 1_000_000,
}
# An FSP tries for as long as the switch may be away.
_ATTEMPTS_MAX = 3_000
_RETRY_MS = 200
# Longer bodies are judged when their ids, which stand in the path or come first, say so: one of sixteen.
_JUDGED_BYTES_MAX = 20_000


class ChaosWorld:
    """Used as a context: a ready switch and two provisioned FSPs. Every world has a name of its own on its parts."""

    def __init__(
        self,
        parts: Parts,
        folder: Path,
        name: str,
        *,
        workers: int = 2,
        variables: Mapping[str, str] | None = None,
        release_of: Callable[[Described], str] = lambda _: RELEASE,
        settings: Mapping[str, int | str] | None = None,
    ) -> None:
        [port] = free_ports(1)
        self.parts = parts
        self.settings: Settings = parts.settings_of(
            name, data_folder=folder / name, fspiop_port=port, **{**_SETTINGS, **(settings or {})}
        )
        self._name = name
        # Interpreters that start again and again are quicker with bytecode, whatever else they were told.
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        self.processes = Processes(
            describe(self.settings, workers),
            self.settings,
            folder / name / "logs",
            {**bytecode, **(variables or {})},
            release_of,
        )
        url = f"http://{self.settings.fspiop_host}:{port}"
        check = _check if DOCUMENT.exists() else None
        # Called for every callback that the payer gets.
        self.on_payer_told: Callable[[Receipt], None] = lambda _: None
        self.payer = SimulatedPayer(
            PAYER, url, check=check, connections_max=32, on_receipt=lambda receipt: self.on_payer_told(receipt)
        )
        self.payee = SimulatedPayee(PAYEE, url, check=check, attempts_max=_ATTEMPTS_MAX, retry_ms=_RETRY_MS)
        self._ports = dict(zip((PAYER, PAYEE), free_ports(2), strict=True))
        self._served: dict[str, ExitStack] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "ChaosWorld":
        with ExitStack() as stack:
            self.parts.make_database(self._name)
            prepare(self.settings)
            self.engine: Engine = stack.enter_context(opened_engine(self.settings, "chaos"))
            self.stream: Stream = stack.enter_context(opened_stream(self.settings, self.engine))
            stack.callback(self.payer.close_client)
            for fsp in (self.payer, self.payee):
                endpoints = callback_endpoints(f"http://127.0.0.1:{self._ports[fsp.name]}")
                provision_fsp(self.engine, fsp.name, "USD", NET_DEBIT_CAP * UNITS, COVER * UNITS, endpoints)
                stack.callback(self.take_down, fsp)
                self.bring_up(fsp)
            stack.enter_context(self.processes)
            self.processes.wait_until_healthy()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def bring_up(self, fsp: SimulatedEndpoint) -> None:
        """Serve the FSP's endpoint, at the address that it always has; nothing when it is up."""
        if fsp.name not in self._served:
            stack = ExitStack()
            stack.enter_context(served(fsp, self._ports[fsp.name]))
            self._served[fsp.name] = stack

    def take_down(self, fsp: SimulatedEndpoint) -> None:
        """Refuse connections from now on; nothing when it is down."""
        stack = self._served.pop(fsp.name, None)
        if stack is not None:
            stack.close()


def _check(method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    if len(body) > _JUDGED_BYTES_MAX and zlib.crc32(path.encode() + body[:200]) % 16:
        return []
    return check_callback(method, path, headers, body)
