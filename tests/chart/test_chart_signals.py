"""Alerts and dashboard use existing metrics, and every alert links to its section of the runbook."""

import asyncio
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.alert_cases import CASES
from tests.chart.rendering import CHART
from tests.chart.signals import alerts, dashboard, panels, rules, variables
from tests.scenes.fleet import Replica, write_configuration
from tests.servers import Server

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
_METRIC = re.compile(r"\b((?:taskgate|process)_[a-z_]+)\b")
_GROUPED = re.compile(r"\bby \(([a-z, ]+)\)")
_MATCHED = re.compile(r"([a-z_]+)(?:=~|!~|!=|=)\"")
_OF_PROMETHEUS = {"namespace", "job", "pod", "le"}


def queries() -> list[str]:
    """All expressions of the dashboard."""
    board = dashboard()
    return [*(query for _, query in panels(board)), *variables(board)]


@pytest.fixture(scope="module")
def exposed(shared_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the metrics that a real gateway exposes."""
    folder = tmp_path_factory.mktemp("exposed")
    redis = {"url": shared_valkey.url}
    file = write_configuration(folder, sandbox_url="http://127.0.0.1:9", redis=redis, weights={"c0": 1})
    replica = Replica(file, folder / "log")
    replica.start()
    try:
        yield _scrape(replica)
    finally:
        replica.end()


def _scrape(replica: Replica) -> str:
    asyncio.run(replica.ready())
    with urllib.request.urlopen(f"http://127.0.0.1:{replica.metrics_port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def _samples(exposed: str) -> set[str]:
    """The names of all samples that there can be."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", exposed, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def test_every_queried_metric_is_exposed_by_the_gateway(exposed: str) -> None:
    """No alert and no panel queries a metric that a real gateway does not expose."""
    examples = [(CHART / "examples" / name).read_text() for name in ("keda.yaml", "prometheus-adapter-values.yaml")]
    made = {f"taskgate_{name}" for name in ("event_loop_lag_seconds_p", "requests_per_second")}  # by the adapter
    expressions = [*queries(), *(rule["expr"] for rule in rules()), *examples]
    asked = {name for query in expressions for name in _METRIC.findall(query)}
    assert asked - _samples(exposed) - made == set()
    assert len(asked) > 20


def test_every_queried_label_exists() -> None:
    """Every label in a query occurs in service/telemetry."""
    source = "".join(file.read_text() for file in (RUNBOOK.parents[1] / "service" / "telemetry").glob("*.py"))
    asked: set[str] = set()
    for query in [*queries(), *(rule["expr"] for rule in rules())]:
        asked |= {label for group in _GROUPED.findall(query) for label in group.split(", ")}
        asked |= set(_MATCHED.findall(query))
    recorded = {label for rule in rules() if "record" in rule for label in rule["labels"]}
    assert {label for label in asked - _OF_PROMETHEUS - recorded if f'"{label}"' not in source} == set()


def test_every_query_selects_one_release() -> None:
    """Each selector has namespace and job: two releases in one Prometheus don't mix."""
    for query in [*queries(), *(rule["expr"] for rule in rules())]:
        if query.startswith("label_values"):
            continue
        selectors = re.findall(r"(?:taskgate[_:]|process_|\bup)[a-z0-9_:]*(\{[^}]*\})?", query)
        assert selectors, query
        assert all("namespace=" in selector and "job=" in selector for selector in selectors), query


def test_every_alert_links_to_its_section_of_the_runbook() -> None:
    """The anchor of each runbook_url is a heading of docs/runbook.md, and every section has an alert."""
    headings = re.findall(r"^## (Taskgate\S+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"https://docs.example/runbook.md#{rule['alert'].lower()}"


def test_every_section_of_the_runbook_has_the_same_parts() -> None:
    """Each section says what the alert means, what to look at, and what to do."""
    for section in RUNBOOK.read_text().split("\n## Taskgate")[1:]:
        marks = re.findall(r"^\*\*(.+?)\*\*", section, re.MULTILINE)
        assert marks == ["What it means.", "What to look at.", "What to do."], section[:40]


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    """`make test-alerts` has a case that fires it and one in which it stays silent, for each alert."""
    names = {rule["alert"] for rule in alerts()}
    assert {case.alert for case in CASES if case.fires_at} == names
    assert {case.alert for case in CASES if case.silent_at and not case.fires_at} == names


def test_the_alerts_are_filled_in() -> None:
    """All of our placeholders are replaced, and Prometheus' own templates are kept."""
    text = yaml.safe_dump(alerts())
    assert not re.search(r"SELECTOR|RELEASE|RUNBOOK\b", text)
    assert "{{ $labels.app }}" in text


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    """Every panel has its own position and a description."""
    board = dashboard()
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells)
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
