"""Every branch of every decision is taken by pure tests: tests/domain reaches all of domain/ by itself."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tests_of_the_domain_take_every_branch_of_it(tmp_path: Path) -> None:  # BULK-117, D24
    data, report = tmp_path / "data", tmp_path / "report.json"
    coverage = [sys.executable, "-m", "coverage"]
    # The machine of the whole switch takes long to trace, and the tests of each decision reach everything without it.
    # Nothing is configured, so nothing is left out; the plugins of the test run itself have no part in it.
    run = [*coverage, "run", "--branch", "--source=domain", f"--data-file={data}", f"--rcfile={tmp_path / 'none'}"]
    pytest_ = [
        "-m",
        "pytest",
        "tests/domain",
        "--ignore=tests/domain/test_switch_machine.py",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:cov",
        "-p",
        "no:xdist",
    ]
    (tmp_path / "none").write_text("")
    done = subprocess.run([*run, *pytest_], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    written = [*coverage, "json", f"--data-file={data}", f"--rcfile={tmp_path / 'none'}", "-o", str(report)]
    subprocess.run(written, cwd=ROOT, capture_output=True, check=True, timeout=60)
    files = json.loads(report.read_text())["files"]
    assert set(files) == {str(path.relative_to(ROOT)) for path in (ROOT / "domain").glob("*.py")}
    missing = {
        name: {"lines": file["missing_lines"], "branches": file["missing_branches"]}
        for name, file in files.items()
        if file["missing_lines"] or file["missing_branches"]
    }
    assert missing == {}


def test_nothing_is_excused_from_coverage_without_a_reason() -> None:  # D24
    """Mojaloop's own measure leaves out every file whose name begins with bulk-."""
    assert "[tool.coverage" not in (ROOT / "pyproject.toml").read_text()
    assert not [name for name in (".coveragerc", "setup.cfg", "tox.ini") if (ROOT / name).exists()]
    for path in sorted((ROOT / "domain").glob("*.py")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if "pragma:" in line:
                assert "pragma: no branch" in line, f"{path.name}:{number + 1} leaves out more than a branch"
                said = re.search(r"pragma: no branch  # \w+", line) or lines[number - 1].lstrip().startswith("# ")
                assert said, f"{path.name}:{number + 1} says no reason"
