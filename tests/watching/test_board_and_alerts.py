"""The Grafana board and the alert rules are well formed, and where promtool is there, the rules do what they say."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.watching.expressions import parsed
from tests.watching.files import DEPLOY, alert_rules, board

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
PROMETHEUS = DEPLOY / "prometheus"
_COLUMNS = 24


def test_no_two_panels_lie_on_one_another_and_none_leaves_the_grid() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    panels = board()["panels"]
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= _COLUMNS, panel["title"]
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(taken.values()) == 1
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_board_has_its_rows_and_asks_the_data_source_that_is_chosen() -> None:
    panels = board()["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Now", "Traffic", "Lag", "Money", "Callbacks", "Trouble"]
    assert [one["name"] for one in board()["templating"]["list"]] == ["datasource"]
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_alert_says_how_urgent_it_is_what_is_wrong_and_what_to_do() -> None:
    rules = alert_rules()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["do"]
        assert parsed(rule["expr"]).metrics


def test_every_alert_has_samples_that_raise_it() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    raised = {
        label.split('"')[1]
        for one in tests
        for asked in one["promql_expr_test"]
        for label in (sample["labels"] for sample in asked["exp_samples"])
    }
    assert raised == {rule["alert"] for rule in alert_rules()}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package prometheus; or PROMTOOL)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "prometheus.yml"),
        ("check", "config", "compose.yml"),
    ],
)
def test_prometheus_itself_takes_the_files(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_finds_every_service_of_the_compose_file() -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())["services"]
    ours = {
        name for name in services if name in {"api", "admin", "deliverer", "exporter"} or name.startswith("handler-")
    }
    [job] = yaml.safe_load((PROMETHEUS / "compose.yml").read_text())["scrape_configs"]
    assert {name for found in job["dns_sd_configs"] for name in found["names"]} == ours
    assert "--config.file=/etc/prometheus/compose.yml" in services["prometheus"]["command"]
    assert Path(PROMETHEUS / "compose.yml").exists()


@pytest.mark.parametrize(
    ("text", "metrics", "matched", "grouped"),
    [
        ('up{job="x"} == 0', {"up"}, {("up", "job")}, set()),
        (
            'sum by (a, b) (rate(m_total{c!="d",e=~"f|g"}[5m])) / on (a) n',
            {"m_total", "n"},
            {("m_total", "c"), ("m_total", "e")},
            {"a", "b"},
        ),
        ("topk(20, x > 0.9 * y) or vector(0)", {"x", "y"}, set(), set()),
    ],
)
def test_an_expression_is_read_as_prometheus_reads_it(
    text: str, metrics: set[str], matched: set[tuple[str, str]], grouped: set[str]
) -> None:
    found = parsed(text)
    assert (set(found.metrics), set(found.matched), set(found.grouped)) == (metrics, matched, grouped)
