"""A healthy database is proven whole, and every single kind of corruption is found and named."""

# ruff: noqa: E501 - a corruption is one line of a table

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text

from db.engine import make_engine
from object_store.folder import FolderObjectStore
from operations.verification import CHECKS, Verification, run_checks, verify_database
from tests.conftest import database_url_of
from tests.operations.all_outcomes import make_all_outcomes, make_pipeline


@pytest.fixture(scope="module")
def whole(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One database with all outcomes for all tests of this file: each rolls back what it breaks."""
    admin = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    name = f"verification_{uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE bulk_switch_template"))
    engine = make_engine(database_url_of(postgres_url, name), application_name="tests")
    folder: Path = tmp_path_factory.mktemp("objects")
    make_all_outcomes(make_pipeline(engine, FolderObjectStore(folder)))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def broken_by(engine: Engine, *statements: str, settled_ms: int = 0) -> Verification:
    """What the checks say after these statements, which are rolled back."""
    with engine.connect() as tx:
        for statement in (part for one in statements for part in one.split(";")):
            assert tx.execute(text(statement)).rowcount, f"nothing was broken: {statement}"
        found = run_checks(tx, settled_ms)
        tx.rollback()
    return found


def test_all_outcomes_are_whole(whole: Engine) -> None:  # BULK-121, X-35, BULK-122, BULK-135
    verification = verify_database(whole, settled_ms=0)
    assert verification.findings == []
    assert verification.holding == [check.name for check in CHECKS]
    # Every kind of row that the checks are about was there to look at.
    assert all(count > 0 for count in verification.rows.values()), verification.rows


def test_a_fresh_database_is_whole(engine: Engine) -> None:
    assert verify_database(engine).is_whole


# What is done to the database, and the checks that name it (others may notice it too).
CORRUPTIONS: list[tuple[str, str]] = [
    # References.
    ("item-bulk", "UPDATE bulk_transfer_association SET transfer_key = 999990001 WHERE transfer_key = (SELECT min(transfer_key) FROM bulk_transfer_association)"),
    ("item-count", "DELETE FROM bulk_transfer_association WHERE transfer_key = (SELECT max(transfer_key) FROM bulk_transfer_association)"),
    ("item-count", "UPDATE bulk_transfer SET item_count = item_count + 1 WHERE bulk_key = (SELECT max(bulk_key) FROM bulk_transfer)"),
    ("transfer-item", "UPDATE bulk_transfer_association SET transfer_id = gen_random_uuid() WHERE bulk_processing_state = 'COMPLETED'"),
    ("transfer-single", "INSERT INTO transfer SELECT 9990000, gen_random_uuid(), hash, amount, currency_id, payer_participant_currency_id, payee_participant_currency_id, condition, expiration FROM transfer LIMIT 1"),
    ("transfer-single", "INSERT INTO single_transfer VALUES (9990000, 'payerfsp', 'payeefsp', gen_random_uuid(), now())"),
    ("transfer-single", "INSERT INTO single_transfer_fulfilment VALUES (9990000, gen_random_uuid(), '', NULL, now())"),
    ("step-transfer", "DELETE FROM transfer WHERE transfer_key = (SELECT min(transfer_key) FROM transfer)"),
    ("transfer-accounts", "UPDATE transfer SET payee_participant_currency_id = payer_participant_currency_id WHERE currency_id = 'USD'"),
    ("transfer-accounts", "UPDATE transfer SET payer_participant_currency_id = NULL WHERE currency_id = 'USD'"),
    ("transfer-accounts", "UPDATE transfer SET currency_id = 'EUR' WHERE currency_id = 'USD'"),
    ("account-position", "DELETE FROM participant_position WHERE participant_currency_id = (SELECT max(participant_currency_id) FROM participant_position)"),
    ("account-position", "UPDATE participant_position_change SET participant_currency_id = 4711 WHERE participant_position_change_id = 3"),
    ("parties", "UPDATE bulk_transfer SET payer_fsp = 'ghost' WHERE item_count > 0"),
    ("callback-subject", "UPDATE delivery SET entity_id = gen_random_uuid() WHERE kind = 'FINAL' AND callback = 'PUT_ERROR'"),
    ("callback-subject", "UPDATE delivery SET fsp = 'strangerfsp' WHERE kind = 'FORWARD' AND resource = 'bulkTransfers'"),
    ("open-expirations", "DELETE FROM open_expiration"),
    ("open-expirations", "INSERT INTO open_expiration VALUES (999, false, now(), 'payerfsp', 1)"),
    ("open-expirations", "INSERT INTO open_expiration VALUES (999, true, now(), 'payerfsp', 1)"),
    # Histories.
    ("transfer-steps", "UPDATE transfer_state_change SET to_state = 'COMMITTED' WHERE to_state = 'RESERVED'"),
    ("transfer-history", "DELETE FROM transfer_state_change WHERE to_state = 'RECEIVED_FULFIL'"),
    ("bulk-steps", "UPDATE bulk_transfer_state_change SET to_state = 'COMPLETED' WHERE to_state = 'ACCEPTED'"),
    ("bulk-history", "DELETE FROM bulk_transfer_state_change WHERE to_state = 'PROCESSING'"),
    ("funds-steps", "UPDATE funds_transfer_state_change SET to_state = 'RESERVED' WHERE to_state = 'ABORTED'"),
    ("funds-history", "DELETE FROM funds_transfer_state_change WHERE to_state = 'RESERVED'"),
    ("histories-begin", "DELETE FROM transfer_state_change WHERE from_state = '-'"),
    ("histories-begin", "DELETE FROM bulk_transfer_state_change WHERE from_state = '-'"),
    ("histories-begin", "DELETE FROM funds_transfer_state_change WHERE from_state = '-'"),
    # What stands in several places.
    ("item-transfer-states", "UPDATE bulk_transfer_association SET bulk_processing_state = 'COMPLETED' WHERE bulk_processing_state = 'REJECTED'"),
    ("item-transfer-states", "UPDATE bulk_transfer_association SET bulk_processing_state = 'DONE' WHERE bulk_processing_state = 'REJECTED'"),
    ("item-transfer-states", "INSERT INTO transfer_state_change SELECT transfer_key, 'RESERVED', 'RECEIVED_ERROR', 'reject' FROM transfer_state_change a WHERE to_state = 'RESERVED' AND NOT EXISTS (SELECT FROM transfer_state_change b WHERE b.transfer_key = a.transfer_key AND b.from_state = 'RESERVED'); INSERT INTO transfer_state_change SELECT transfer_key, 'RECEIVED_ERROR', 'ABORTED_ERROR', 'reject', 0 FROM transfer_state_change a WHERE to_state = 'RECEIVED_ERROR' AND NOT EXISTS (SELECT FROM transfer_state_change b WHERE b.transfer_key = a.transfer_key AND b.from_state = 'RECEIVED_ERROR'); UPDATE bulk_transfer_association SET bulk_processing_state = 'RECEIVED' WHERE bulk_processing_state = 'ACCEPTED'"),
    ("bulk-item-states", "UPDATE bulk_transfer_association SET bulk_processing_state = 'ACCEPTED' WHERE bulk_processing_state = 'COMPLETED'"),
    ("bulk-item-states", "DELETE FROM bulk_transfer_state_change WHERE to_state = 'REJECTED' AND from_state = 'PENDING_INVALID'"),
    ("bulk-item-states", "DELETE FROM bulk_transfer_state_change WHERE to_state = 'COMPLETED'"),
    ("bulk-fulfilments", "DELETE FROM bulk_transfer_fulfilment"),
    ("bulk-fulfilments", "INSERT INTO bulk_transfer_fulfilment SELECT bulk_key, gen_random_uuid(), NULL, NULL, 'VALID', now() FROM bulk_transfer WHERE bulk_key NOT IN (SELECT bulk_key FROM bulk_transfer_fulfilment)"),
    ("bulk-results", "DELETE FROM bulk_transfer_result WHERE role = 'PAYEE'"),
    ("bulk-results", "INSERT INTO bulk_transfer_result SELECT bulk_key, 'PAYEE', 'content/x', 'PUT', 'content/x' FROM bulk_transfer WHERE bulk_key NOT IN (SELECT bulk_key FROM bulk_transfer_result WHERE role = 'PAYEE')"),
    ("step-facts", "UPDATE transfer_state_change SET position = NULL WHERE to_state = 'COMMITTED'"),
    ("step-facts", "UPDATE transfer_state_change SET fulfilment = NULL WHERE to_state = 'RECEIVED_FULFIL'"),
    # Money.
    ("position-sums", "UPDATE participant_position SET value = value + 0.0001 WHERE value <> 0"),
    ("position-sums", "UPDATE transfer SET amount = amount + 0.0001 WHERE currency_id = 'USD'"),
    ("position-sums", "UPDATE funds_transfer SET amount = amount + 1"),
    ("position-history", "DELETE FROM participant_position_change WHERE participant_position_change_id = (SELECT max(participant_position_change_id) - 3 FROM participant_position_change)"),
    ("position-history", "UPDATE participant_position_change SET value = value + 1 WHERE participant_position_change_id = (SELECT max(participant_position_change_id) FROM participant_position_change)"),
    ("position-changes", "UPDATE participant_position_change SET value = value + 1, value_before = value_before WHERE participant_position_change_id = (SELECT max(participant_position_change_id) FROM participant_position_change)"),
    ("position-changes", "UPDATE participant_position_change SET value_before = 1 WHERE participant_position_change_id = (SELECT min(participant_position_change_id) FROM participant_position_change)"),
    ("position-changes", "DELETE FROM participant_position_change WHERE value = value_before AND participant_currency_id IN (SELECT payer_participant_currency_id FROM transfer)"),
    ("position-replay", "UPDATE transfer_state_change SET position = position + 0.0001 WHERE to_state = 'COMMITTED'"),
    ("position-replay", "UPDATE transfer_state_change SET position = position - 0.0001 WHERE to_state = 'RESERVED'"),
    ("reservation-limits", "UPDATE participant_position_change SET net_debit_cap = value - 0.0001 WHERE value > value_before"),
    ("reservation-limits", "UPDATE participant_position_change SET cover = value - 0.0001 WHERE value > value_before"),
    ("reservation-limits", "UPDATE participant_position_change SET net_debit_cap = NULL WHERE value > value_before"),
    ("zero-sum", "UPDATE participant_position SET value = value + 1 WHERE participant_currency_id IN (SELECT payee_participant_currency_id FROM transfer)"),
    ("bulk-sums", "DELETE FROM transfer_state_change WHERE to_state = 'EXPIRED_RESERVED'"),
    ("bulk-sums", "DELETE FROM transfer_state_change WHERE to_state = 'COMMITTED'"),
    ("funds-replay", "UPDATE funds_transfer_state_change SET position = position + 1"),
    # Callbacks.
    ("bulk-final-callbacks", "DELETE FROM delivery WHERE kind = 'FINAL' AND fsp = 'payerfsp'"),
    ("bulk-final-callbacks", "DELETE FROM delivery WHERE kind = 'FINAL' AND fsp = 'payeefsp'"),
    ("bulk-final-callbacks", "UPDATE delivery SET kind = 'FINAL' WHERE kind = 'FORWARD' AND entity_id NOT IN (SELECT entity_id FROM delivery WHERE kind = 'FINAL')"),
    ("single-final-callbacks", "DELETE FROM delivery WHERE kind = 'FINAL' AND resource = 'transfers' AND fsp = 'payerfsp'"),
    ("single-final-callbacks", "DELETE FROM delivery WHERE kind = 'FINAL' AND callback = 'PATCH'"),
    ("single-final-callbacks", "UPDATE delivery SET kind = 'FINAL' WHERE kind = 'FORWARD' AND resource = 'transfers' AND entity_id NOT IN (SELECT entity_id FROM delivery WHERE kind = 'FINAL')"),
    ("forwards", "UPDATE delivery SET kind = 'FORWARD' WHERE kind = 'FINAL' AND resource = 'transfers' AND callback = 'PUT_ERROR' AND entity_id NOT IN (SELECT entity_id FROM delivery WHERE kind = 'FORWARD')"),
    ("transfer-accounts", "UPDATE single_transfer SET payee_fsp = 'strangerfsp'"),
    ("parties", "UPDATE single_transfer SET payer_fsp = 'ghost'"),
    ("transfer-single", "DELETE FROM single_transfer"),
    ("forwards", "UPDATE delivery SET kind = 'FORWARD' WHERE kind = 'FINAL' AND callback = 'PUT_ERROR' AND entity_id NOT IN (SELECT entity_id FROM delivery WHERE kind = 'FORWARD')"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "statement"), CORRUPTIONS, ids=[f"{n}-{c}" for n, (c, _) in enumerate(CORRUPTIONS)])
def test_a_corruption_is_found_and_named(whole: Engine, check: str, statement: str) -> None:
    found = broken_by(whole, statement)
    assert check in {finding.check for finding in found.findings}
    assert check not in found.holding
    assert all(finding.subject and finding.detail and finding.detail != "None" for finding in found.findings)


def test_every_check_has_a_corruption_that_it_finds() -> None:
    assert {check.name for check in CHECKS} == {name for name, _ in CORRUPTIONS}


def test_a_callback_may_be_on_its_way_for_a_time(whole: Engine) -> None:
    statement = "DELETE FROM delivery WHERE kind = 'FINAL'"
    assert broken_by(whole, statement, settled_ms=3_600_000).is_whole
    assert not broken_by(whole, statement, settled_ms=0).is_whole


def test_callbacks_that_retention_has_removed_are_not_missing(whole: Engine) -> None:
    note = "INSERT INTO retention_horizon (kind, horizon) VALUES ('callbacks', now() + interval '1 day')"
    assert broken_by(whole, "DELETE FROM delivery WHERE kind = 'FINAL'", note).is_whole
