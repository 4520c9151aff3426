"""The acts on settlement models. They exist before the participants do: a participant's accounts follow from them."""

from collections.abc import Sequence

from sqlalchemy import Engine

from bulk_api_adapter.admin.acts import begin_act, require_currency, require_name
from db import settlement_models
from db.accounts import POSITION, SETTLEMENT
from db.settlement_models import SettlementModel
from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal

GRANULARITIES = ("GROSS", "NET")
INTERCHANGES = ("BILATERAL", "MULTILATERAL")
DELAYS = ("DEFERRED", "IMMEDIATE")
LEDGER_ACCOUNT_TYPES = ("INTERCHANGE_FEE", "POSITION")
SETTLEMENT_ACCOUNT_TYPES = ("POSITION", "SETTLEMENT", "INTERCHANGE_FEE_SETTLEMENT")


def list_settlement_models(engine: Engine) -> Sequence[SettlementModel]:
    """All models, in the order in which they were made."""
    with engine.connect() as tx:
        return settlement_models.settlement_models(tx)


def read_settlement_model(engine: Engine, name: str) -> SettlementModel:
    """One model; refuses with 3200 when there is none of that name."""
    for model in list_settlement_models(engine):
        if model.name == name:
            return model
    raise Refusal(ErrorCode.ID_NOT_FOUND, "Settlement Model does not exist")


def add_settlement_model(engine: Engine, model: SettlementModel, *, actor: str) -> None:
    """A new model; refuses with 3000 when there is one of that name."""
    require_name(model.name)
    if model.currency is not None:
        require_currency(model.currency)
    if model.ledger_account_type == POSITION and model.settlement_account_type != SETTLEMENT:
        # What a participant brought in is its cover, and that is what a SETTLEMENT account says.
        raise Refusal(
            ErrorCode.VALIDATION_ERROR, "settlementAccountType must be SETTLEMENT where ledgerAccountType is POSITION"
        )
    subject = f"settlementModels/{model.name}"
    with begin_act(engine, actor=actor, action="add_settlement_model", subject=subject) as act:
        if not settlement_models.add_settlement_model(act.tx, model):
            raise Refusal(ErrorCode.CLIENT_ERROR, "Settlement Model already exists")
        act.record(before=None, after={field: getattr(model, field) for field in SettlementModel.__dataclass_fields__})


def set_settlement_model_active(engine: Engine, name: str, *, is_active: bool, actor: str) -> SettlementModel:
    """Use a model for participants to come, or no longer; the accounts that it made stay."""
    subject = f"settlementModels/{name}"
    with begin_act(engine, actor=actor, action="set_settlement_model_active", subject=subject) as act:
        if not settlement_models.lock_settlement_model(act.tx, name):
            raise Refusal(ErrorCode.ID_NOT_FOUND, "Settlement Model does not exist")
        before = {model.name: model for model in settlement_models.settlement_models(act.tx)}[name]
        settlement_models.set_settlement_model_active(act.tx, name, is_active=is_active)
        act.record(before={"isActive": before.is_active}, after={"isActive": is_active})
        return {model.name: model for model in settlement_models.settlement_models(act.tx)}[name]
