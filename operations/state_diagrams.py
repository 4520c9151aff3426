"""The pictures of the state machines, written from their tables.

python -m operations.state_diagrams > docs/states.md
"""

from collections.abc import Mapping
from typing import Any

from domain.combinations import EXTENSIONS, SEED_COMBINATIONS, SINGLE_COMBINATIONS, Combination
from domain.states import (
    BULK_API_STATES,
    BULK_TRANSITIONS,
    FUNDS_TRANSITIONS,
    ITEM_TRANSITIONS,
    START,
    TRANSFER_API_STATES,
    TRANSFER_TRANSITIONS,
)


def state_diagrams() -> str:
    """The whole of docs/states.md."""
    return "\n".join(
        [
            "# States and messages",
            "",
            "Written from `domain/states.py` and `domain/combinations.py` by `python -m operations.state_diagrams`;",
            "a test keeps it equal to them. No machine has a cycle: a state is left once, and the database keys every",
            "step by (entity, from_state).",
            "",
            *_machine("Bulk (bulkTransferState)", BULK_TRANSITIONS),
            *_shown("A bulk", {state.value: shown for state, shown in BULK_API_STATES.items()}),
            *_machine("Item of a bulk (bulkProcessingState)", ITEM_TRANSITIONS),
            *_machine("Transfer (transferState)", TRANSFER_TRANSITIONS),
            *_shown("A transfer", {state.value: shown for state, shown in TRANSFER_API_STATES.items()}),
            *_machine("Funds in and out", FUNDS_TRANSITIONS),
            *_combinations("The seed's 24 combinations", SEED_COMBINATIONS),
            *_combinations("Ours", EXTENSIONS),
            *_combinations("Of single transfers", SINGLE_COMBINATIONS),
        ]
    )


def _machine(title: str, table: Mapping[str, frozenset[Any]]) -> list[str]:
    lines = [f"## {title}", "", "```mermaid", "stateDiagram-v2"]
    for before, afters in table.items():
        source = "[*]" if before == START else str(before)
        lines += [f"    {source} --> {after}" for after in sorted(map(str, afters))]
        if not afters:
            lines.append(f"    {source} --> [*]")
    return [*lines, "```", ""]


def _shown(subject: str, states: Mapping[str, str]) -> list[str]:
    lines = [f"{subject} is shown to FSPs as:", "", "| state | shown as |", "|---|---|"]
    return [*lines, *(f"| {state} | {shown} |" for state, shown in states.items()), ""]


def _combinations(title: str, combinations: tuple[Combination, ...]) -> list[str]:
    lines = [f"## {title}", "", "| # | from | topic | type | action | status |", "|---|---|---|---|---|---|"]
    for one in combinations:
        number = "" if one.number is None else one.number
        lines.append(f"| {number} | {one.source} | {one.topic} | {one.type} | {one.action} | {one.status} |")
    return [*lines, ""]


if __name__ == "__main__":
    print(state_diagrams(), end="")
