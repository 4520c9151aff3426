"""Ports of this machine that a service has for itself: chosen free on its first start, kept in its folder.

They lie below the range from which the system takes the ports of outgoing connections. In that range, a client that tries a
dead server's port again and again would one day be given that very port and connect to itself, and the server could not
come back.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from deploy.services.errors import ServiceError
from operations.ports import reserve_port, trouble_with_port

HOST = "127.0.0.1"
# SeaweedFS's admin part listens on a port and on that port + 10,000: both stay below 32,768, where Linux begins.
_FIRST, _LAST = 10_000, 22_767
_TRIES_MAX = 1_000


def kept_ports(folder: Path, names: Sequence[str], also: int = 0) -> dict[str, int]:
    """The ports by name; `also` is an offset at which the same server listens once more. Raises ServiceError."""
    file = folder / "ports.json"
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    missing = [name for name in names if name not in kept]
    if missing:
        for name in missing:
            kept[name] = _free_port(set(kept.values()), also)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(file)
    return {name: kept[name] for name in names}


def _free_port(taken: set[int], also: int) -> int:
    for _ in range(_TRIES_MAX):
        port = random.randint(_FIRST, _LAST)  # noqa: S311  # no secret
        if port not in taken and all(_is_ours(one) for one in {port, port + also}):
            return port
    raise ServiceError(f"no free port between {_FIRST} and {_LAST} in {_TRIES_MAX} tries")


def _is_ours(port: int) -> bool:
    """Whether nobody listens there, nor is about to."""
    return reserve_port(port) and trouble_with_port(HOST, port) is None
