"""The chart's Prometheus expressions: those of the alerts and of the dashboard, as installed."""

import json
from typing import Any

from tests.chart.matrix import MONITORED
from tests.chart.rendering import render


def rules() -> list[dict[str, Any]]:
    """Return all rules as they are installed."""
    groups = render(MONITORED).one("PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return only the alerts."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    """The dashboard that Grafana gets."""
    (text,) = render(MONITORED).one("ConfigMap", "tg-taskgate-dashboard")["data"].values()
    board: dict[str, Any] = json.loads(text)
    return board


def panels(board: dict[str, Any]) -> list[tuple[str, str]]:
    """Title of its panel and expression, for each expression."""
    return [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", ())]


def variables(board: dict[str, Any]) -> list[str]:
    """The lookups of the dashboard's variables: `label_values(selector, label)`."""
    return [each["definition"] for each in board["templating"]["list"] if "definition" in each]
