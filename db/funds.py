"""Funds in and out: a row per transfer of money between a participant and the hub's bank, and a row per step of it."""

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from domain.funds import FundsAction, FundsRequest, FundsStep
from domain.money import format_amount, from_numeric
from domain.states import FundsState


@dataclass(frozen=True, slots=True)
class FundsTransfer:
    """What was asked for under a transferId, the hub's account on the other side, and what has become of it."""

    transfer_id: UUID
    request: FundsRequest
    hub_account_id: int
    state: FundsState


# The state that was entered and not left again: there is one, because a state is left once at most.
_READ = text(
    """
    SELECT funds.participant_currency_id, funds.hub_participant_currency_id, funds.action, funds.amount, funds.reason,
           funds.external_reference, funds.extension_list, step.to_state
    FROM funds_transfer AS funds
    JOIN funds_transfer_state_change AS step USING (transfer_id)
    WHERE funds.transfer_id = :transfer_id
      AND NOT EXISTS (
        SELECT 1 FROM funds_transfer_state_change AS later
        WHERE later.transfer_id = funds.transfer_id AND later.from_state = step.to_state
      )
    """
)
_ADD = text(
    """
    INSERT INTO funds_transfer (transfer_id, participant_currency_id, hub_participant_currency_id, action, amount,
                                reason, external_reference, extension_list)
    VALUES (:transfer_id, :account_id, :hub_account_id, :action, CAST(:amount AS numeric), :reason,
            :external_reference, CAST(:extension_list AS jsonb))
    ON CONFLICT DO NOTHING
    """
)
_STEP = text(
    """
    INSERT INTO funds_transfer_state_change (transfer_id, from_state, to_state, reason, position)
    VALUES (:transfer_id, :from_state, :to_state, :reason, CAST(:position AS numeric))
    ON CONFLICT DO NOTHING
    """
)


def read_funds(tx: Connection, transfer_id: UUID) -> FundsTransfer | None:
    """The transfer under this id, or None."""
    row = tx.execute(_READ, {"transfer_id": transfer_id}).one_or_none()
    if row is None:
        return None
    request = FundsRequest(
        account_id=row.participant_currency_id,
        action=FundsAction(row.action),
        amount=from_numeric(row.amount),
        reason=row.reason,
        external_reference=row.external_reference,
        extension_list=tuple((extension["key"], extension["value"]) for extension in row.extension_list or ()),
    )
    return FundsTransfer(transfer_id, request, row.hub_participant_currency_id, FundsState(row.to_state))


def add_funds(tx: Connection, transfer_id: UUID, request: FundsRequest, hub_account_id: int) -> bool:
    """Write the request; False when the id is taken."""
    extensions = [{"key": key, "value": value} for key, value in request.extension_list]
    parameters = {
        "transfer_id": transfer_id,
        "account_id": request.account_id,
        "hub_account_id": hub_account_id,
        "action": request.action,
        "amount": format_amount(request.amount),
        "reason": request.reason,
        "external_reference": request.external_reference,
        "extension_list": json.dumps(extensions) if extensions else None,
    }
    return tx.execute(_ADD, parameters).rowcount == 1


def add_funds_step(tx: Connection, transfer_id: UUID, step: FundsStep, reason: str) -> bool:
    """Write the step; False when the state was left before."""
    parameters = {
        "transfer_id": transfer_id,
        "from_state": step.from_state,
        "to_state": step.to_state,
        "reason": reason,
        "position": format_amount(step.settlement_value),
    }
    return tx.execute(_STEP, parameters).rowcount == 1
