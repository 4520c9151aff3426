"""A set of bulks whose end is known from the way they are built: what each item becomes, and what each side is told.

mixed      a third is refused at the switch, for three reasons; of the rest the payee commits some and refuses some
slow       the payee takes its time, and commits everything
error      the payee sends PUT /error
rejected   the payee says REJECTED of the whole
careless   wrong fulfilments, and items that the payee's answer leaves out
none       nothing can be reserved; the payee never hears of it
refused    the payee is nobody; the bulk is refused as a whole
silent     the payee says nothing, and time runs out
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.states import BulkState, ItemState, TransferState
from operations.simulated_fsp import PayeeBehaviour
from tests.bulks import PAYEE

AMOUNT = 10
NET_DEBIT_CAP = 1_000_000
COVER = 5_000_000
# Refused whatever the position is: more than the limit, or the cover, leaves when nothing is reserved.
_OVER_THE_LIMIT = "2000000"
_OVER_THE_COVER = "6000000"

# The payee's answer to a silent bulk never comes, and everything else is meant to end long before its time is up.
EXPIRES_IN_MS = 120_000
SILENT_EXPIRES_IN_MS = 3_000

_PREPARED = (TransferState.RECEIVED_PREPARE,)
_RESERVED = (*_PREPARED, TransferState.RESERVED)
_GIVEN_BACK = (*_RESERVED, TransferState.RECEIVED_ERROR, TransferState.ABORTED_ERROR)


@dataclass(frozen=True)
class Fate:
    """What becomes of an item: its own state, the steps of its transfer, what the payer's list says ("" for committed)."""

    item: ItemState
    transfer: tuple[TransferState, ...]
    code: str
    amount: str = str(AMOUNT)
    currency: str = "USD"

    @property
    def is_forwarded(self) -> bool:
        return TransferState.RESERVED in self.transfer


COMMITTED = Fate(ItemState.COMPLETED, (*_RESERVED, TransferState.RECEIVED_FULFIL, TransferState.COMMITTED), code="")
NO_ACCOUNT = Fate(ItemState.RECEIVED_INVALID, (TransferState.INVALID,), "3100", currency="EUR")
OVER_LIMIT = Fate(
    ItemState.RECEIVED_INVALID, (*_PREPARED, TransferState.ABORTED_REJECTED), "4200", amount=_OVER_THE_LIMIT
)
OVER_COVER = Fate(
    ItemState.RECEIVED_INVALID, (*_PREPARED, TransferState.ABORTED_REJECTED), "4001", amount=_OVER_THE_COVER
)
REFUSED = Fate(ItemState.REJECTED, _GIVEN_BACK, "5104")
IN_ERROR = Fate(ItemState.REJECTED, _GIVEN_BACK, "5105")
REJECTED = Fate(ItemState.REJECTED, _GIVEN_BACK, "5100")
WRONG = Fate(ItemState.FULFIL_INVALID, _GIVEN_BACK, "3100")
LEFT_OUT = Fate(ItemState.FULFIL_INVALID, _GIVEN_BACK, "5000")
EXPIRED = Fate(ItemState.EXPIRED, (*_RESERVED, TransferState.RESERVED_TIMEOUT, TransferState.EXPIRED_RESERVED), "3303")

FORWARDED = (BulkState.RECEIVED, BulkState.PENDING_PREPARE, BulkState.ACCEPTED)


@dataclass(frozen=True)
class Script:
    """One kind of bulk. `callback` is what the payer gets: PUT with the list, or PUT_ERROR with `bulk_code`."""

    name: str
    fates: tuple[Fate, ...]
    # Without PENDING_FULFIL, which depends on how the news of the items fall into batches.
    history: tuple[BulkState, ...]
    behaviour: PayeeBehaviour = field(default_factory=PayeeBehaviour)
    callback: str = "PUT"
    bulk_code: str | None = None
    payee_fsp: str = PAYEE
    expires_in_ms: int = EXPIRES_IN_MS
    # How many items the request has where none of them has a fate of its own.
    items: int = 3

    @property
    def size(self) -> int:
        return len(self.fates) or self.items

    @property
    def is_forwarded(self) -> bool:
        return BulkState.ACCEPTED in self.history

    @property
    def committed(self) -> int:
        return sum(not fate.code for fate in self.fates)

    def wishes(self) -> Mapping[str, Any]:
        """What SimulatedPayer.build is asked for."""
        return {
            "items": self.size,
            "amount": [fate.amount for fate in self.fates] or [str(AMOUNT)],
            "currency": [fate.currency for fate in self.fates] or ["USD"],
            "expires_in_ms": self.expires_in_ms,
        }


SCRIPTS: Sequence[Script] = (
    Script(
        "mixed",
        (NO_ACCOUNT, *[COMMITTED] * 10, OVER_LIMIT, *[COMMITTED] * 6, OVER_COVER, *[REFUSED] * 8, OVER_LIMIT),
        (*FORWARDED, BulkState.PROCESSING, BulkState.COMPLETED),
        PayeeBehaviour(commit_max=16, error_code="5104"),
    ),
    Script(
        "slow",
        (COMMITTED,) * 12,
        (*FORWARDED, BulkState.PROCESSING, BulkState.COMPLETED),
        PayeeBehaviour(delay_ms=600),
    ),
    Script(
        "error",
        (*[IN_ERROR] * 9, NO_ACCOUNT),
        (*FORWARDED, BulkState.PROCESSING, BulkState.REJECTED),
        PayeeBehaviour(answer="error", error_code="5105"),
        callback="PUT_ERROR",
        bulk_code="5105",
    ),
    Script(
        "rejected",
        (REJECTED,) * 8,
        (*FORWARDED, BulkState.PROCESSING, BulkState.REJECTED),
        PayeeBehaviour(bulk_transfer_state="REJECTED"),
    ),
    Script(
        "careless",
        (*[WRONG] * 3, *[COMMITTED] * 9, *[LEFT_OUT] * 2),
        (*FORWARDED, BulkState.PROCESSING, BulkState.COMPLETED),
        PayeeBehaviour(wrong_fulfilments=3, omit=2),
    ),
    Script(
        "none",
        (OVER_COVER, NO_ACCOUNT, OVER_LIMIT, NO_ACCOUNT),
        (BulkState.RECEIVED, BulkState.PENDING_PREPARE, BulkState.REJECTED),
    ),
    Script(
        "refused",
        (),
        (BulkState.RECEIVED, BulkState.PENDING_INVALID, BulkState.REJECTED),
        callback="PUT_ERROR",
        bulk_code="3203",
        payee_fsp="nobody",
    ),
    Script(
        "silent",
        (EXPIRED,) * 6,
        (*FORWARDED, BulkState.EXPIRING, BulkState.EXPIRED),
        PayeeBehaviour(answer="silent"),
        expires_in_ms=SILENT_EXPIRES_IN_MS,
    ),
)

SCRIPT_OF: Mapping[str, Script] = {script.name: script for script in SCRIPTS}
