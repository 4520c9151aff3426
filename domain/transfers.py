"""A transfer as it stands: what the decisions of position and fulfil are made on.

Values that exist once per transfer and batch are named tuples, here and in the decisions: as immutable as a frozen
dataclass, and made in a third of the time, which a thousand of them per batch and stage make felt.
"""

from typing import NamedTuple

from domain.fspiop_errors import FspiopError
from domain.states import ItemState, TransferState


class Transfer(NamedTuple):
    """A transfer with its current state, and the reason and error of the step that led there.

    The amount counts 1/10,000; the accounts are the POSITION accounts of payer and payee, None (like the condition) only
    where the transfer is INVALID. `item_state` is None for a transfer outside any bulk.
    """

    transfer_key: int
    state: TransferState
    amount: int
    payer_account: int | None
    payee_account: int | None
    condition: bytes | None
    expiration_ms: int
    item_state: ItemState | None
    reason: str
    error: FspiopError | None
