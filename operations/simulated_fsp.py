"""Simulated FSPs for the demo, the bench and the tests: a payer that posts bulks, a payee that answers them.

    simulated_bulk      the bodies: bulks with real conditions, fulfilments that a payee can compute
    simulated_transfer  the same of single transfers
    simulated_endpoint  what both have in common: callbacks taken, checked, remembered; how to serve them
    simulated_payer     POST and GET, and waiting for what comes back
    simulated_payee     the PUTs, by a behaviour

Within a process (tests, bench, demo):

    payer = SimulatedPayer("payerfsp", switch_url, check=check_callback)
    with served(payer) as url:                       # the base of the endpoints: callback_endpoints(url)
        payer.post(bulk := payer.build("payeefsp"))
        payer.wait_for(bulk.bulk_transfer_id)

As a process of its own: `run_simulated_fsp`.
"""

from collections.abc import Callable

from operations.simulated_bulk import SECRET, Bulk, build_bulk
from operations.simulated_endpoint import Checker, Receipt, SimulatedEndpoint, serve_forever, served
from operations.simulated_payee import BEHAVIOURS, PayeeAnswer, PayeeBehaviour, SimulatedPayee
from operations.simulated_payer import SimulatedPayer, SwitchAnswer

__all__ = [
    "BEHAVIOURS",
    "SECRET",
    "Bulk",
    "Checker",
    "PayeeAnswer",
    "PayeeBehaviour",
    "Receipt",
    "SimulatedEndpoint",
    "SimulatedPayee",
    "SimulatedPayer",
    "SwitchAnswer",
    "build_bulk",
    "callback_endpoints",
    "run_simulated_fsp",
    "served",
    "transfer_endpoints",
]


def callback_endpoints(url: str) -> dict[str, str]:
    """The endpoints to provision for an FSP that is served at `url`: type → value."""
    return {
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_POST": f"{url}/bulkTransfers",
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_PUT": f"{url}/bulkTransfers/{{{{id}}}}",
        "FSPIOP_CALLBACK_URL_BULK_TRANSFER_ERROR": f"{url}/bulkTransfers/{{{{id}}}}/error",
        **transfer_endpoints(url),
    }


def transfer_endpoints(url: str) -> dict[str, str]:
    """Those of them that single transfers are told to."""
    return {
        "FSPIOP_CALLBACK_URL_TRANSFER_POST": f"{url}/transfers",
        "FSPIOP_CALLBACK_URL_TRANSFER_PUT": f"{url}/transfers/{{{{transferId}}}}",
        "FSPIOP_CALLBACK_URL_TRANSFER_ERROR": f"{url}/transfers/{{{{transferId}}}}/error",
    }


def run_simulated_fsp(
    role: str,
    name: str,
    port: int,
    switch_url: str,
    behaviour: PayeeBehaviour = BEHAVIOURS["commit"],
    *,
    host: str = "127.0.0.1",
    secret: bytes = SECRET,
    on_receipt: Callable[[Receipt], None] | None = None,
) -> None:
    """Be a payer or a payee until SIGTERM or SIGINT; `on_receipt` is told of every callback, GET /summary of all.

    A payer as a process takes callbacks; bulks are posted in its name with SimulatedPayer(name, switch_url).post.
    """
    if role not in {"payer", "payee"}:
        raise ValueError(f"a simulated FSP is a payer or a payee, not {role!r}")
    fsp: SimulatedEndpoint
    if role == "payer":
        fsp = SimulatedPayer(name, switch_url, secret=secret, on_receipt=on_receipt)
    else:
        fsp = SimulatedPayee(name, switch_url, behaviour=behaviour, secret=secret, on_receipt=on_receipt)
    serve_forever(fsp, port, host)
