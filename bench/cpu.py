"""CPU seconds from /proc: per process, and for PostgreSQL the postmaster with all its children, the exited ones too.

A parent's own record holds what its exited (and awaited) children used, so the sum over a postmaster, its exited and its
living children misses nobody, however short a backend lived. Linux counts in ticks of 10 ms, which is fine for runs of
seconds.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class NoSuchProcess(Exception):
    """The process has ended; the text says which."""


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    own_s: float
    exited_children_s: float


def _stat(pid: int) -> _Stat:
    try:
        # The command's name stands in parentheses and may hold anything; what follows the last one is numbers.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise NoSuchProcess(f"process {pid} has ended") from None
    user, system, children_user, children_system = (int(field) / _TICKS_PER_S for field in fields[11:15])
    return _Stat(int(fields[1]), user + system, children_user + children_system)


def process_seconds(pid: int) -> float:
    """What a process has used, with those of its children that have exited; raises NoSuchProcess."""
    stat = _stat(pid)
    return stat.own_s + stat.exited_children_s


def children_seconds(pid: int) -> dict[int, float]:
    """What each living child of a process has used."""
    seconds: dict[int, float] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = _stat(int(entry.name))
            except NoSuchProcess:
                continue
            if stat.parent == pid:
                seconds[int(entry.name)] = stat.own_s + stat.exited_children_s
    return seconds


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Seconds used since each process began; `backends` are PostgreSQL's living children by pid."""

    seconds: Mapping[str, float]
    backends: Mapping[int, float]


POSTGRES = "postgres"


def read_cpu(pids: Mapping[str, int], postmaster: int) -> CpuReading:
    """The processes by name, and `postgres` for the server as a whole; raises NoSuchProcess."""
    seconds = {name: process_seconds(pid) for name, pid in pids.items()}
    backends = children_seconds(postmaster)
    seconds[POSTGRES] = process_seconds(postmaster) + sum(backends.values())
    return CpuReading(seconds, backends)


def used_between(before: CpuReading, after: CpuReading) -> dict[str, float]:
    """Seconds per process between two readings of the same processes."""
    return {name: round(after.seconds[name] - before.seconds[name], 3) for name in before.seconds}


def used_by_application(before: CpuReading, after: CpuReading, applications: Mapping[int, str]) -> dict[str, float]:
    """PostgreSQL's seconds by the application that a backend serves; the rest (WAL writer, vacuum …) as background."""
    used: dict[str, float] = {}
    for pid, seconds in after.backends.items():
        name = applications.get(pid) or "background"
        used[name] = used.get(name, 0.0) + seconds - before.backends.get(pid, 0.0)
    # Backends that came or went meanwhile stand in the sum over the postmaster alone.
    rest = after.seconds[POSTGRES] - before.seconds[POSTGRES] - sum(used.values())
    used["background"] = used.get("background", 0.0) + rest
    return {name: round(seconds, 3) for name, seconds in sorted(used.items(), key=lambda pair: -pair[1])}
