"""How what participants owe each other is settled: the models, which decide the accounts that a participant gets."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class SettlementModel:
    """One model; without a currency it is the default for every currency that has none of its own."""

    name: str
    settlement_granularity: str
    settlement_interchange: str
    settlement_delay: str
    currency: str | None
    require_liquidity_check: bool
    ledger_account_type: str
    settlement_account_type: str
    auto_position_reset: bool
    is_active: bool = True


_ALL = text(
    """
    SELECT name, settlement_granularity, settlement_interchange, settlement_delay, currency_id,
           require_liquidity_check, ledger_account_type, settlement_account_type, auto_position_reset, is_active
    FROM settlement_model ORDER BY settlement_model_id
    """
)
_LOCK = text("SELECT name FROM settlement_model WHERE name = :name FOR NO KEY UPDATE")
_SET_ACTIVE = text("UPDATE settlement_model SET is_active = :is_active WHERE name = :name")
_ADD = text(
    """
    INSERT INTO settlement_model (name, settlement_granularity, settlement_interchange, settlement_delay, currency_id,
                                  require_liquidity_check, ledger_account_type, settlement_account_type,
                                  auto_position_reset, is_active)
    VALUES (:name, :settlement_granularity, :settlement_interchange, :settlement_delay, :currency,
            :require_liquidity_check, :ledger_account_type, :settlement_account_type, :auto_position_reset, :is_active)
    ON CONFLICT DO NOTHING
    """
)


def settlement_models(tx: Connection) -> Sequence[SettlementModel]:
    """All models, in the order in which they were made."""
    return [SettlementModel(*row) for row in tx.execute(_ALL)]


def lock_settlement_model(tx: Connection, name: str) -> bool:
    """Hold the model until the end of the transaction; False when there is none of that name."""
    return tx.execute(_LOCK, {"name": name}).one_or_none() is not None


def add_settlement_model(tx: Connection, model: SettlementModel) -> bool:
    """Write the model; False when the name is taken."""
    parameters = {name: getattr(model, name) for name in SettlementModel.__dataclass_fields__}
    return tx.execute(_ADD, parameters).rowcount == 1


def set_settlement_model_active(tx: Connection, name: str, *, is_active: bool) -> None:
    """Use the model for participants to come, or no longer."""
    tx.execute(_SET_ACTIVE, {"name": name, "is_active": is_active})
