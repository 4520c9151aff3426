"""How tests run `bulk-switch` as a person does, and find what it has left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Many processes start on few cores, perhaps beside other tests.
DEADLINE_S = 150.0


def environment(data_folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a command: no settings but these."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("BULK_SWITCH_")}
    return {**variables, "BULK_SWITCH_DATA_FOLDER": str(data_folder), **settings}


def start(*arguments: str, data_folder: Path, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "operations", *arguments],
        cwd=ROOT,
        env=environment(data_folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*arguments: str, data_folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; standard output and standard error apart."""
    return subprocess.run(
        [sys.executable, "-m", "operations", *arguments],
        cwd=ROOT,
        env=environment(data_folder, **settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def wait_until(condition: Callable[[], object], what: str, explain: Callable[[], str] = str) -> None:
    """Until the condition holds; `explain` says more about it when it does not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {DEADLINE_S:.0f} s {explain()}".rstrip()
        time.sleep(0.02)


def processes_of(data_folder: Path) -> dict[int, str]:
    """The processes that run now and were told this data folder, with their command lines."""
    marker = str(data_folder).encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if marker in command or marker in (folder / "environ").read_bytes():
                found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            # It has ended meanwhile, or is not ours to read; zombies have neither.
            continue
    return found
