"""The Dockerfile, read as its steps, so that they can be done by hand where no engine is."""

import fnmatch
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Step:
    """`stage` counts from 0; `text` is what stands after the instruction, continued lines joined."""

    stage: int
    instruction: str
    text: str


def steps(path: Path = ROOT / "Dockerfile") -> list[Step]:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Step] = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, text = line.strip().partition(" ")
        stage += instruction == "FROM"
        found.append(Step(stage, instruction, text.strip()))
    return found


def arguments(step: Step) -> list[str]:
    """Of CMD and ENTRYPOINT in the exec form; raises ValueError for the shell form."""
    text = step.text.partition("CMD ")[2] if step.instruction == "HEALTHCHECK" else step.text
    return [str(one) for one in json.loads(text)]


def variables(found: list[Step], stage: int) -> dict[str, str]:
    """What ENV says in a stage; references to other variables as they stand."""
    pairs = [
        word.partition("=")
        for step in found
        if step.stage == stage and step.instruction == "ENV"
        for word in shlex.split(step.text)
    ]
    return {name: value for name, _, value in pairs}


def copy(step: Step, context: Path, workspace: Path) -> None:
    """What COPY does with a relative target: a file into a folder, a folder's content into the target."""
    *sources, target = step.text.split()
    for source in sources:
        place = workspace / target
        if (context / source).is_dir():
            shutil.copytree(context / source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place = place / Path(source).name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(context / source, place)


def is_sent(path: str, ignored: list[str]) -> bool:
    """Whether a path of the context reaches the engine, for the patterns that our .dockerignore uses."""
    sent = True
    for line in ignored:
        pattern = line.removeprefix("!")
        folders = [path, *(str(parent) for parent in Path(path).parents)]
        if any(fnmatch.fnmatch(folder, pattern.removeprefix("**/")) for folder in folders):
            sent = line.startswith("!")
    return sent


def ignored_paths() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pinned(image: str) -> bool:
    """An exact version: three numbers, or two where the project has no third."""
    return re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z-]+)?", image) is not None
