"""The Mojaloop SDK's own JWS signer and validator, run by node; fetched once per version into .services/."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_FILES = ("package.json", "package-lock.json", "jws.js")
_INSTALL_WAIT_S = 120


class Sdk:
    """A node process that signs and validates."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def sign(
        self, key: str, method: str, uri: str, headers: dict[str, str], body: dict[str, Any]
    ) -> tuple[dict[str, str], bytes]:
        """The headers and the bytes that an FSP with this private key sends."""
        answer = self._ask(act="sign", key=key, method=method, uri=uri, headers=headers, body=body)
        return answer["headers"], answer["body"].encode()

    def fault(self, keys: dict[str, str], headers: dict[str, str], body: bytes) -> str | None:
        """Why an FSP that knows these public keys refuses the request, or None when it takes it."""
        answer = self._ask(act="validate", keys=keys, headers=headers, body=body.decode())
        return None if answer["valid"] else answer["error"]

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def running_sdk() -> Iterator[Sdk]:
    """Skips the test with one line where node, npm or the registry is missing."""
    folder = _installed()
    process = subprocess.Popen(["node", "jws.js"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Sdk(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _installed() -> Path:
    """The folder with the packages of the lock file, fetched now if they are not there."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not there: the Mojaloop SDK cannot be run")
    digest = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _FILES)).hexdigest()[:12]
    services = Path(os.environ.get("BULK_SWITCH_SERVICES", _ROOT / ".services"))
    folder = services / f"sdk-{digest}"
    if not folder.is_dir():
        services.mkdir(parents=True, exist_ok=True)
        # Several test processes may do this at once; whoever is first gives the folder its name.
        with tempfile.TemporaryDirectory(dir=services, prefix=".sdk-") as temporary:
            new = Path(temporary) / "sdk"
            new.mkdir()
            for name in _FILES:
                shutil.copy(_HERE / name, new)
            _fetch(new)
            if not folder.is_dir():
                try:
                    new.rename(folder)
                except OSError:
                    assert folder.is_dir()
    return folder


def _fetch(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch the Mojaloop SDK within {_INSTALL_WAIT_S} s")
    if done.returncode:
        pytest.skip(f"npm cannot fetch the Mojaloop SDK: {done.stderr.strip().splitlines()[-1:]}")
