"""The metrics and labels that a PromQL expression names: enough of the language for the board and the alerts."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_KEYWORDS = frozenset(
    {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "inf"}
)
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)\s*\"[^\"]*\"")
_RANGE = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True)
class Expression:
    """`matched` are (metric, label) pairs of selectors, `grouped` the labels of groupings."""

    metrics: frozenset[str]
    matched: frozenset[tuple[str, str]]
    grouped: frozenset[str]


def parsed(text: str) -> Expression:
    text = _RANGE.sub(" ", text)
    matched = {(metric, label) for metric, matchers in _SELECTOR.findall(text) for label in _MATCHER.findall(matchers)}
    grouped = {label.strip() for labels in _GROUPING.findall(text) for label in labels.split(",") if label.strip()}
    rest = _GROUPING.sub(" ", _SELECTOR.sub(r"\1 ", text))
    metrics = set()
    for word in _WORD.finditer(rest):
        is_call = rest[word.end() :].lstrip().startswith("(")
        is_number = word.start() > 0 and rest[word.start() - 1].isdigit()
        if not is_call and not is_number and word.group() not in _KEYWORDS:
            metrics.add(word.group())
    return Expression(frozenset(metrics), frozenset(matched), frozenset(grouped))
