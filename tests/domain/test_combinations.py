"""The 24 combinations stand as the seed spells them, each on its topic, and anything else is unknown."""

import dataclasses
import re
from pathlib import Path

import pytest

from domain.combinations import (
    EXTENSIONS,
    SEED_COMBINATIONS,
    SINGLE_COMBINATIONS,
    Combination,
    UnknownCombination,
    require_all_known,
    require_known,
)

REQUIREMENTS = Path(__file__).parents[3] / "shared" / "requirements" / "bulk-transfers.md"

# (number, topic, type, action, status): seed 002 §4.3, copied by hand. BULK-58…81.
SEED = [
    (1, "topic-bulk-prepare", "bulk-prepare", "bulk-prepare", "success"),  # BULK-58
    (2, "topic-notification-event", "notification", "bulk-prepare-duplicate", "success"),  # BULK-59
    (3, "topic-notification-event", "notification", "bulk-abort", "error"),  # BULK-60
    (4, "topic-transfer-prepare", "prepare", "bulk-prepare", "success"),  # BULK-61
    (5, "topic-bulk-processing", "bulk-processing", "prepare-duplicate", "success"),  # BULK-62
    (6, "topic-bulk-processing", "bulk-processing", "prepare-duplicate", "error"),  # BULK-63
    (7, "topic-transfer-position", "position", "bulk-prepare", "success"),  # BULK-64
    (8, "topic-bulk-processing", "bulk-processing", "bulk-prepare", "error"),  # BULK-65
    (9, "topic-bulk-processing", "bulk-processing", "bulk-prepare", "success"),  # BULK-66
    (10, "topic-bulk-processing", "bulk-processing", "bulk-prepare", "error"),  # BULK-67
    (11, "topic-bulk-processing", "bulk-processing", "bulk-commit", "success"),  # BULK-68
    (12, "topic-bulk-fulfil", "bulk-fulfil", "bulk-commit", "success"),  # BULK-69
    (13, "topic-bulk-processing", "bulk-processing", "bulk-timeout-reserved", "error"),  # BULK-70
    (14, "topic-bulk-processing", "bulk-processing", "reject", "success"),  # BULK-71
    (15, "topic-bulk-processing", "bulk-processing", "fulfil-duplicate", "error"),  # BULK-72
    (16, "topic-bulk-processing", "bulk-processing", "fulfil-duplicate", "success"),  # BULK-73
    (17, "topic-transfer-position", "position", "bulk-commit", "success"),  # BULK-74
    (18, "topic-bulk-processing", "bulk-processing", "bulk-commit", "error"),  # BULK-75
    (19, "topic-transfer-fulfil", "bulk-fulfil", "bulk-commit", "success"),  # BULK-76
    (20, "topic-notification-event", "notification", "bulk-abort", "error"),  # BULK-77
    (21, "topic-notification-event", "notification", "bulk-prepare", "success"),  # BULK-78
    (21, "topic-notification-event", "notification", "bulk-commit", "success"),
    (22, "topic-bulk-processing", "bulk-processing", "bulk-timeout-received", "error"),  # BULK-79
    (23, "topic-transfer-position", "position", "bulk-timeout-reserved", "error"),  # BULK-80
    (24, "topic-bulk-processing", "bulk-processing", "bulk-timeout-reserved", "error"),  # BULK-81
]


# (source, topic, type, action, status) of the single transfers, written down a second time: a change is made on purpose.
SINGLE = [
    ("adapter", "topic-single-transfer-prepare", "prepare", "prepare", "success"),
    ("single-prepare", "topic-single-transfer-position", "position", "prepare", "success"),
    ("adapter", "topic-single-transfer-fulfil", "fulfil", "commit", "success"),
    ("adapter", "topic-single-transfer-fulfil", "fulfil", "reserve", "success"),
    ("adapter", "topic-single-transfer-fulfil", "fulfil", "abort", "success"),
    ("single-fulfil", "topic-single-transfer-position", "position", "commit", "success"),
    ("single-fulfil", "topic-single-transfer-position", "position", "reserve", "success"),
    ("single-fulfil", "topic-single-transfer-position", "position", "abort", "error"),
    ("single-fulfil", "topic-single-transfer-position", "position", "abort-validation", "error"),
    ("single-fulfil", "topic-single-transfer-position", "position", "reserved-aborted", "error"),
    ("timeout", "topic-single-transfer-position", "position", "timeout-reserved", "error"),
    ("adapter", "topic-transfer-get", "get", "get", "success"),
    ("single-prepare", "topic-single-notification-event", "notification", "prepare", "error"),
    ("single-prepare", "topic-single-notification-event", "notification", "prepare-duplicate", "success"),
    ("single-prepare", "topic-single-notification-event", "notification", "prepare-duplicate", "error"),
    ("single-position", "topic-single-notification-event", "notification", "prepare", "success"),
    ("single-position", "topic-single-notification-event", "notification", "prepare", "error"),
    ("single-position", "topic-single-notification-event", "notification", "commit", "success"),
    ("single-position", "topic-single-notification-event", "notification", "reserve", "success"),
    ("single-position", "topic-single-notification-event", "notification", "abort", "error"),
    ("single-position", "topic-single-notification-event", "notification", "abort-validation", "error"),
    ("single-position", "topic-single-notification-event", "notification", "reserved-aborted", "error"),
    ("single-position", "topic-single-notification-event", "notification", "timeout-reserved", "error"),
    ("timeout", "topic-single-notification-event", "notification", "timeout-received", "error"),
    ("single-fulfil", "topic-single-notification-event", "notification", "commit", "error"),
    ("single-fulfil", "topic-single-notification-event", "notification", "fulfil-duplicate", "success"),
    ("single-fulfil", "topic-single-notification-event", "notification", "fulfil-duplicate", "error"),
    ("transfer-get", "topic-single-notification-event", "notification", "get", "success"),
    ("transfer-get", "topic-single-notification-event", "notification", "get", "error"),
]


def test_the_table_of_the_single_transfers_stands_as_it_was_written_down() -> None:  # BULK-132
    ours = [(one.source, one.topic, one.type, one.action, one.status) for one in SINGLE_COMBINATIONS]
    assert ours == SINGLE
    assert {one.number for one in SINGLE_COMBINATIONS} == {None}


def test_the_table_is_the_seeds() -> None:
    assert [(one.number, one.topic, one.type, one.action, one.status) for one in SEED_COMBINATIONS] == SEED


def test_the_table_is_the_one_of_the_requirements() -> None:
    """Type, action and status of each row of BULK-58…81, read from the document."""
    if not REQUIREMENTS.exists():
        pytest.skip("the requirements are not beside this checkout")
    rows = re.findall(
        r"^\| BULK-\d+ \| (\d+) \| .*? \| ([a-z-]+) \| ([a-z /-]+) \| (success|error) \|",
        REQUIREMENTS.read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 24
    ours = {(one.number, one.type, one.action, one.status) for one in SEED_COMBINATIONS}
    for number, type_, actions, status in rows:
        for action in actions.split(" / "):
            assert (int(number), type_, action.strip(), status) in ours


@pytest.mark.parametrize(
    "one", [*SEED_COMBINATIONS, *EXTENSIONS, *SINGLE_COMBINATIONS], ids=lambda one: f"{one.number}-{one.action}"
)
def test_a_known_combination_passes_on_its_topic_only(one: Combination) -> None:
    require_known(one.topic, one.type, one.action, one.status)
    with pytest.raises(UnknownCombination, match="knows no message"):
        require_known("topic-bulk-get" if one.topic != "topic-bulk-get" else "x", one.type, one.action, one.status)


@pytest.mark.parametrize("action", ["commit", "abort", "", "BULK-COMMIT", "bulk-commit "])
def test_an_unknown_combination_is_an_error(action: str) -> None:  # BULK-82, D5
    with pytest.raises(UnknownCombination):
        require_known("topic-bulk-processing", "bulk-processing", action, "success")


def test_a_batch_is_known_if_each_message_of_it_is() -> None:  # BULK-82
    good = [one for one in SEED_COMBINATIONS if one.topic == "topic-bulk-processing"]
    require_all_known("topic-bulk-processing", good * 3)
    require_all_known("topic-bulk-processing", [])
    first = good[0]
    for wrong in (
        dataclasses.replace(first, type="x"),
        dataclasses.replace(first, action="x"),
        dataclasses.replace(first, status="x"),
    ):
        with pytest.raises(UnknownCombination):
            require_all_known("topic-bulk-processing", [*good, wrong])
    with pytest.raises(UnknownCombination, match=r"^topic-bulk-get knows no message of type bulk-processing, action "):
        require_all_known("topic-bulk-get", good)


def test_extensions_collide_with_no_combination_of_the_seed() -> None:
    seed = {(one.topic, one.type, one.action, one.status) for one in SEED_COMBINATIONS}
    ours = [(one.topic, one.type, one.action, one.status) for one in EXTENSIONS]
    assert len(set(ours)) == len(ours)
    # Two handlers may tell an FSP the same of a single transfer, but in no lane of the bulks.
    single = {(one.topic, one.type, one.action, one.status) for one in SINGLE_COMBINATIONS}
    assert not seed & set(ours)
    assert not single & {*seed, *ours}
