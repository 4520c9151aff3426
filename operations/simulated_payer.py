"""A payer FSP: posts bulks and single transfers, asks for them, and takes what it is told.

Its requests go out on the caller's thread, any number of threads at once; its callbacks come in through the app. Like a real
client it sends a request again when the connection breaks or the switch says 503, as often as it is told to: sending the
same request again is always safe.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httpx

from operations.simulated_bulk import FSPIOP_CONTENT, SECRET, Bulk, build_bulk
from operations.simulated_endpoint import Checker, Receipt, SimulatedEndpoint
from operations.simulated_transfer import TRANSFERS_CONTENT, Transfer, build_transfer

TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class SwitchAnswer:
    """What the switch answered at once."""

    status: int
    body: bytes


class SimulatedPayer(SimulatedEndpoint):
    """The payer `name` at a switch; `check` judges every callback (see simulated_endpoint)."""

    role = "payer"

    def __init__(
        self,
        name: str,
        switch_url: str,
        *,
        secret: bytes = SECRET,
        check: Checker | None = None,
        on_receipt: Callable[[Receipt], None] | None = None,
        connections_max: int = 16,
    ) -> None:
        super().__init__(name, check=check, on_receipt=on_receipt)
        self._secret = secret
        self._client = httpx.Client(
            base_url=switch_url,
            timeout=TIMEOUT_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=connections_max, max_keepalive_connections=connections_max),
        )

    def build(self, payee_fsp: str, **wishes: Any) -> Bulk:
        """A bulk from this payer; the wishes are those of simulated_bulk.build_bulk."""
        return build_bulk(self.name, payee_fsp, secret=self._secret, **wishes)

    def post(self, bulk: Bulk, *, attempts_max: int = 1, retry_ms: int = 200, **headers: str) -> SwitchAnswer:
        """POST /bulkTransfers; raises httpx.HTTPError when no attempt was answered.

        Further headers are added or replace the usual ones: `fspiop_source="other"`, `accept="…"`.
        """
        content = FSPIOP_CONTENT.format(version="1.1")
        usual = self._headers(bulk.payee_fsp) | {"content-type": content, "accept": content}
        return self._send("POST", "/bulkTransfers", usual | _named(headers), bulk.body, attempts_max, retry_ms)

    def get(self, bulk_transfer_id: str, *, attempts_max: int = 1, retry_ms: int = 200, **headers: str) -> SwitchAnswer:
        """GET /bulkTransfers/{ID}; the answer proper comes as a callback."""
        content = FSPIOP_CONTENT.format(version="1.1")
        usual = self._headers(None) | {"content-type": content, "accept": content}
        path = f"/bulkTransfers/{bulk_transfer_id}"
        return self._send("GET", path, usual | _named(headers), None, attempts_max, retry_ms)

    def build_transfer(self, payee_fsp: str, **wishes: Any) -> Transfer:
        """A single transfer from this payer; the wishes are those of simulated_transfer.build_transfer."""
        return build_transfer(self.name, payee_fsp, secret=self._secret, **wishes)

    def post_transfer(
        self, transfer: Transfer, *, attempts_max: int = 1, retry_ms: int = 200, **headers: str
    ) -> SwitchAnswer:
        """POST /transfers; raises httpx.HTTPError when no attempt was answered."""
        content = TRANSFERS_CONTENT.format(version="1.1")
        usual = self._headers(transfer.payee_fsp) | {"content-type": content, "accept": content}
        return self._send("POST", "/transfers", usual | _named(headers), transfer.body, attempts_max, retry_ms)

    def close_client(self) -> None:
        """Give up the connections to the switch."""
        self._client.close()

    def _headers(self, destination: str | None) -> dict[str, str]:
        headers = {"date": formatdate(usegmt=True), "fspiop-source": self.name}
        return headers if destination is None else headers | {"fspiop-destination": destination}

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, attempts_max: int, retry_ms: int
    ) -> SwitchAnswer:
        for attempt in range(1, attempts_max + 1):
            try:
                response = self._client.request(method, path, headers=headers, content=body)
            except httpx.TransportError:
                if attempt == attempts_max:
                    raise
            else:
                if response.status_code != 503 or attempt == attempts_max:
                    return SwitchAnswer(response.status_code, response.content)
            time.sleep(retry_ms / 1000)
        raise ValueError("attempts_max must be at least 1")


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
