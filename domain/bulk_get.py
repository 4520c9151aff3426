"""Who may see what of a bulk: the decision of bulk-get (BULK-107, BULK-108).

unknown to the database   RECEIVED to the one whose POST lies in the object store unread; else 3210
the payer                 everything
the payee                 its subset, once the bulk was ACCEPTED; before that 3210
anybody else              3210: a stranger learns nothing, not even that the bulk exists
"""

from dataclasses import dataclass
from enum import Enum

from domain.states import BulkState, is_final


class Role(Enum):
    """As whom an FSP asks; the value is what bulk_transfer_result calls it."""

    PAYER = "PAYER"
    PAYEE = "PAYEE"


class View(Enum):
    """How much of the bulk the answer shows."""

    NOT_FOUND = "PUT /error with 3210"
    STATE = "bulkTransferState alone"
    ITEMS = "bulkTransferState, and a result per item as far as there is one"
    RESULT = "the stored final list"


@dataclass(frozen=True, slots=True)
class BulkToShow:
    """The bulk under the id; `was_accepted` says whether it was ever forwarded."""

    payer_fsp: str
    payee_fsp: str | None
    state: BulkState
    was_accepted: bool


@dataclass(frozen=True, slots=True)
class BulkView:
    view: View
    state: BulkState | None = None
    role: Role | None = None


NOT_FOUND = BulkView(View.NOT_FOUND)


def decide_bulk_get(source: str, bulk: BulkToShow | None, *, unread_request_of_source: bool) -> BulkView:
    """What `source` is shown. `unread_request_of_source`: its POST is stored, and bulk-prepare has not come to it yet."""
    if bulk is None:
        return BulkView(View.STATE, BulkState.RECEIVED, Role.PAYER) if unread_request_of_source else NOT_FOUND
    if source == bulk.payer_fsp:
        role = Role.PAYER
    elif source == bulk.payee_fsp and bulk.was_accepted:
        role = Role.PAYEE
    else:
        return NOT_FOUND
    if is_final(bulk.state):
        return BulkView(View.RESULT, bulk.state, role)
    # While the payee's answer is worked on the items move under the reader; before that they stand still.
    view = View.ITEMS if bulk.state is BulkState.ACCEPTED else View.STATE
    return BulkView(view, bulk.state, role)
