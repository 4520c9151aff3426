"""The board and the alert rules as they stand in deploy/, and what they ask Prometheus for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml

from tests.watching.exposed import Exposed
from tests.watching.expressions import Expression, parsed

DEPLOY = Path(__file__).parents[2] / "deploy"
# What Prometheus adds to every sample of a target, and a sample of its own.
_TARGET_LABELS = frozenset({"job", "instance", "process"})
_OF_PROMETHEUS = frozenset({"up"})
_LEGEND_LABEL = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")


def board() -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads((DEPLOY / "grafana/board.json").read_bytes())
    return loaded


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board_expressions() -> Iterator[tuple[str, Expression, set[str]]]:
    """Per query its place, what it asks for, and the labels that its legend shows."""
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            shown = set(_LEGEND_LABEL.findall(target["legendFormat"]))
            yield f"{panel['title']}: {target['expr']}", parsed(target["expr"]), shown


def alert_expressions() -> Iterator[tuple[str, Expression, set[str]]]:
    """Per rule its name, what it asks for, and the labels that its text shows."""
    for rule in alert_rules():
        yield rule["alert"], parsed(rule["expr"]), set(_LEGEND_LABEL.findall(rule["annotations"]["summary"]))


def unknown(asked: Expression, shown: set[str], exposed: Exposed) -> list[str]:
    """The metrics and labels that nobody exposes; a label that a grouping takes away must not be shown."""
    trouble = [name for name in asked.metrics - _OF_PROMETHEUS if name not in exposed.names()]
    trouble += [
        f"{metric}{{{label}}}"
        for metric, label in asked.matched
        if label not in exposed.labels(metric) | _TARGET_LABELS
    ]
    there = set(_TARGET_LABELS).union(*(exposed.labels(metric) for metric in asked.metrics))
    trouble += [f"by {label}" for label in asked.grouped - there]
    trouble += [f"shows {label}" for label in shown - (asked.grouped or there)]
    return trouble
