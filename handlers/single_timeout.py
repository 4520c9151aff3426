"""What the timeout handler does with single transfers that are past their time; the same tick looks after the bulks.

RECEIVED_PREPARE ends as EXPIRED_PREPARED, and the payer is told; RESERVED becomes RESERVED_TIMEOUT, and single-position
gives the money back and tells both; what is on its way is pushed forward (D17); what has ended is forgotten. A fulfil or a
position that wants the same step races on the key (transfer, state): the loser tries again and sees the other's state.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.expirations import end_expirations, look_again
from db.singles import singles_by_key
from db.transfers import TransferStateChange, insert_transfer_steps
from domain.combinations import SINGLE_EXPIRED, SINGLE_POSITION_TIMEOUT
from domain.fspiop_errors import TRANSFER_EXPIRED
from domain.identifiers import bulk_key_of, single_key
from domain.single_transfers import SingleTransfer, has_ended
from domain.states import TransferState
from domain.timeout import EXPIRY_STEPS
from handlers.handler import Output
from handlers.single_news import state_outputs

_REASONS = {
    TransferState.EXPIRED_PREPARED: SINGLE_EXPIRED.action,
    TransferState.RESERVED_TIMEOUT: SINGLE_POSITION_TIMEOUT.action,
}


def expire_singles(tx: Connection, numbers: Sequence[int], look_again_ms: int) -> list[Output]:
    """End, or push forward, the single transfers of these numbers, which are past their time."""
    found = singles_by_key(tx, [single_key(number) for number in numbers])
    stepped = [single for single in found.values() if single.state in EXPIRY_STEPS]
    if stepped:
        insert_transfer_steps(tx, [_step(single) for single in stepped])
    now = [_after_step(single) for single in found.values()]
    ended = [bulk_key_of(single.transfer_key) for single in now if has_ended(single.state)]
    # A row without its transfer cannot be written by us; it is not looked at for ever.
    ended += [number for number in numbers if single_key(number) not in found]
    if ended:
        end_expirations(tx, ended)
    look_again(tx, numbers, look_again_ms)
    return [output for single in now for output in state_outputs(single)]


def _step(single: SingleTransfer) -> TransferStateChange:
    to_state = EXPIRY_STEPS[single.state]
    return TransferStateChange(single.transfer_key, single.state, to_state, _REASONS[to_state], error=TRANSFER_EXPIRED)


def _after_step(single: SingleTransfer) -> SingleTransfer:
    to_state = EXPIRY_STEPS.get(single.state)
    return single if to_state is None else single._replace(state=to_state, reason=_REASONS[to_state])
