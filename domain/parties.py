"""Whether the parties and the time of a request can stand at all: what bulk-prepare and single-prepare check alike.

A request has a payer, a payee, perhaps an FSPIOP-Destination, and one expiration. The hub is a participant, but it pays
nobody and is paid by nobody.
"""

from collections.abc import Callable, Mapping

from domain.fspiop_errors import (
    ErrorCode,
    FspiopError,
    fspiop_error,
    payee_inactive,
    payee_not_found,
    payer_inactive,
)

_DAY_MS = 24 * 60 * 60 * 1000


def expiration_refusal(expiration_ms: int, received_at_ms: int, horizon_ms: int) -> FspiopError | None:
    """The expiration must lie after the receipt and within the horizon (3100)."""
    if expiration_ms <= received_at_ms:
        return _invalid("expiration is not in the future")
    if expiration_ms > received_at_ms + horizon_ms:
        return _invalid(f"expiration is more than {horizon_ms // _DAY_MS} days ahead")
    return None


def parties_refusal(
    payer_fsp: str,
    payee_fsp: str,
    destination: str | None,
    participants: Mapping[str, bool],
    hub_name: str,
    *,
    inactive: Callable[[str], FspiopError] = payee_inactive,
) -> FspiopError | None:
    """Payer and payee differ (3100); the payer is active (3202); the payee, and who else is FSPIOP-Destination, is known and
    active (3203, or what `inactive` says).

    `participants` maps every participant named here to whether it is active; the payer is one of them.
    """
    if payer_fsp == payee_fsp:
        return _invalid("payerFsp and payeeFsp must differ")
    if not participants[payer_fsp]:
        return payer_inactive(payer_fsp)
    # FSPIOP-Destination may name the hub itself: then it says no more than the body does.
    names = [payee_fsp] if destination in (None, hub_name) else [payee_fsp, destination]
    for name in names:
        if name not in participants or name == hub_name:
            return payee_not_found(name)
        if not participants[name]:
            return inactive(name)
    return None


def _invalid(detail: str) -> FspiopError:
    return fspiop_error(ErrorCode.VALIDATION_ERROR, detail)
