"""The house keeps its one-way arrows, has no drawer, no crowded room, and its pictures are true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Who may import whom. The arrows go one way so that a decision can be read, tested and trusted without what runs it:
# domain knows nothing of the wire, the wire nothing of the database, handlers nothing of the HTTP edge, and back.
MAY_IMPORT = {
    "domain": set(),
    "schemas": {"domain"},
    "db": {"domain", "schemas"},
    "stream": {"domain", "schemas"},
    "object_store": {"domain", "schemas"},
    "handlers": {"domain", "schemas", "db", "stream", "object_store"},
    "bulk_api_adapter": {"domain", "schemas", "db", "stream", "object_store"},
    "operations": {"domain", "schemas", "db", "stream", "object_store", "handlers", "bulk_api_adapter"},
    # Beside the switch, which knows nothing of how it is put on machines.
    "deploy": {"operations"},
}
# Beyond these packages of our own, the decisions import nothing but the standard library.
PURE = {"domain"}
# A drawer for leftovers hides what belongs together.
DRAWERS = re.compile(r"^(utils?|common|helpers?|misc|shared|lib|tools)$")
FILE_LINES_MAX = 400


def modules() -> list[Path]:
    return [
        path
        for package in MAY_IMPORT
        for path in sorted((ROOT / package).rglob("*.py"))
        if "versions" not in path.parts
    ]


def imported(path: Path) -> set[str]:
    """The top-level packages a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_downwards_only(path: Path) -> None:
    import sys

    package = path.relative_to(ROOT).parts[0]
    ours = imported(path) & set(MAY_IMPORT)
    upwards = ours - MAY_IMPORT[package] - {package}
    assert not upwards, f"{package} must not import {', '.join(sorted(upwards))}: arrows go one way (see MAY_IMPORT)"
    if package in PURE:
        foreign = imported(path) - {package} - set(sys.stdlib_module_names)
        assert not foreign, f"{package} decides without libraries, IO or clock; it imports {', '.join(sorted(foreign))}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_not_crowded_and_says_what_it_is(path: Path) -> None:
    assert not DRAWERS.match(path.stem), f"{path.name}: name the noun this is about"
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX, f"{path.name}: move the walls before it grows"
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name}: a module opens with its map"


def test_the_decisions_know_no_clock() -> None:
    """Time is a fact that is handed in: PostgreSQL's now(), or the receipt time."""
    for path in (ROOT / "domain").glob("*.py"):
        assert not imported(path) & {"time", "datetime", "random", "os", "logging", "asyncio", "socket"}, path.name


def test_the_diagrams_are_the_tables() -> None:
    from operations.state_diagrams import state_diagrams

    written = (ROOT / "docs" / "states.md").read_text()
    assert written == state_diagrams(), "run: .venv/bin/python -m operations.state_diagrams > docs/states.md"
