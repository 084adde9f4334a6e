"""A real Prometheus scrapes two replicas and can answer docs/metrics.md, the dashboard and the alerts."""

import asyncio
import json
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import certifi
import pytest

from service.sandbox.faults import ErrorCode
from tests.chart.signals import alerts, dashboard, panels, rules, variables
from tests.death import die_with_parent
from tests.ports import free_port
from tests.scenes.fleet import APP, Fleet, fleet, get
from tests.servers import Server, eventually

pytestmark = pytest.mark.prometheus

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
NAMESPACE, JOB = "prod", "tg-taskgate-metrics"
"""As the chart's tests install it: a ServiceMonitor names the job after the Service for metrics."""
CHOSEN = {"$namespace": NAMESPACE, "$job": JOB, "$app": ".*", "$__rate_interval": "1m"}
"""What Grafana puts in place of its variables, as the dashboard opens."""
TOO_OFTEN = 60011
SLOW_MACHINE = {"TaskgateRedisSlow", "TaskgateLoopLate"}
"""Alerts that may be right about the machine that tests run on."""


@contextmanager
def prometheus(*targets: int) -> Iterator[int]:
    """Prometheus on a free port with the chart's recording rules and the labels that a cluster gives."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        pods = [
            {"targets": [f"127.0.0.1:{target}"], "labels": {"namespace": NAMESPACE, "pod": f"{JOB}-{number}"}}
            for number, target in enumerate(targets)
        ]
        job = {"job_name": JOB, "static_configs": pods}
        recorded = [rule for rule in rules() if "record" in rule]
        (Path(name) / "rules.json").write_text(json.dumps({"groups": [{"name": "recorded", "rules": recorded}]}))
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"},
            "scrape_configs": [job],
            "rule_files": ["rules.json"],
        }
        file = Path(name) / "prometheus.json"
        file.write_text(json.dumps(config))  # JSON is YAML
        subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True)  # noqa: S607
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(
                [  # noqa: S607 - wherever Debian puts it
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={name}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        try:
            yield port
        finally:
            process.kill()
            process.wait()


async def answer(port: int, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a query."""
    got = await get(port, "/api/v1/query?" + urlencode({"query": query}))
    assert got.status == 200, (query, got.body)
    assert got.json["status"] == "success"
    result: list[dict[str, Any]] = got.json["data"]["result"]
    return result


async def has_data(port: int, query: str) -> bool:
    """Return whether a graph of it would show anything."""
    return any(row["value"][1] != "NaN" for row in await answer(port, query))


async def some_requests(at: Fleet, *, rounds: int) -> None:
    """Hits, fetches, joins and refusals on both replicas, over some scrapes; once the upstream asks for a pause."""
    both = range(len(at.replicas))
    for number in range(rounds):
        if number == rounds // 2:
            await at.upstream.add_fault(ErrorCode(code=TOO_OFTEN, calls=1))
        await asyncio.gather(*(at.page(replica, q=f"new {number}", caller=f"c{replica}") for replica in both))
        if number in (rounds // 4, rounds // 3):  # more than there are turns for in their patience
            await asyncio.gather(*(at.page(0, q=f"{number} {each}", caller="c1", wait=1) for each in range(20)))
        for replica in both:
            await at.page(replica, q=f"{number % 4}", caller="c0")
            await at.page(replica, q=f"{number}", caller="c1", wait=0)
            await at.page(replica, q="renewed", caller="c1", headers={"Cache-Control": "no-cache"})
        await asyncio.sleep(0.25)


@asynccontextmanager
async def under_load(valkey: Server) -> AsyncIterator[tuple[Fleet, int]]:
    """Two replicas that have had some load, and the port of the Prometheus that has watched."""
    authorities = {"ca_file": certifi.where()}  # so that there are certificates to watch
    async with fleet(valkey, replicas=2, weights={"c0": 1.0, "c1": 2.0}, upstream=authorities) as at:
        with prometheus(*(replica.metrics_port for replica in at.replicas)) as port:
            await asyncio.to_thread(eventually, lambda: _listens(port))
            async with asyncio.timeout(20):  # it looks for targets every 5 s
                while [row["value"][1] for row in await answer(port, "up")] != ["1", "1"]:
                    await asyncio.sleep(0.1)
            await some_requests(at, rounds=10)
            yield at, port


async def test_prometheus_scrapes_and_answers(valkey: Server) -> None:
    """Both replicas are up, no sample is refused, and every documented question has an answer about the app."""
    async with under_load(valkey) as (at, port):
        dropped = await answer(port, "sum(prometheus_target_scrapes_sample_duplicate_timestamp_total)")
        assert dropped == [] or dropped[0]["value"][1] == "0"
        calls = await answer(port, "sum(taskgate_upstream_calls_total)")
        assert 1 <= float(calls[0]["value"][1]) <= await at.calls() + len(at.replicas)
        questions = re.findall(r"^```promql\n(.+?)\n```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        assert len(questions) >= 9
        for question in questions:
            rows = await answer(port, question)
            assert rows, question
            assert all(row["metric"].get("app", APP.name) == APP.name for row in rows)
            assert all(row["value"][1] not in ("NaN", "+Inf") or "histogram" in question for row in rows), question


async def test_every_panel_of_the_dashboard_has_data(valkey: Server) -> None:
    """Under load no query of the dashboard is refused and none is empty, and every variable has a value to choose."""
    board = dashboard()
    async with under_load(valkey) as (_, port):
        empty = [(title, query) for title, query in panels(board) if not await has_data(port, chosen(query))]
        assert empty == []
        for variable in variables(board):
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", chosen(variable))
            assert asked is not None
            selector, label = asked.groups()
            got = await get(port, f"/api/v1/label/{label}/values?match[]={quote(selector)}")
            assert len(got.json["data"]) == 1, variable


async def test_every_alert_can_be_evaluated(valkey: Server) -> None:
    """No alert's expression is refused, each looks at data that is there, and those fire that have a reason to."""
    async with under_load(valkey) as (_, port):
        firing = {rule["alert"] for rule in alerts() if await answer(port, rule["expr"])}
        refused = {"TaskgateCallersRefused", "TaskgateErrorBudgetBurnsSlowly"}
        assert firing - SLOW_MACHINE == {*refused, "TaskgateThrottled"}
        blind = [
            (rule["alert"], selector)
            for rule in alerts()
            for selector in re.findall(r"[a-z_:0-9]+\{[^}]*\}", rule["expr"])
            if not await has_data(port, f"count({selector})")
        ]
        assert blind == []


def chosen(query: str) -> str:
    """The query as Grafana sends it."""
    for variable, value in CHOSEN.items():
        query = query.replace(variable, value)
    assert "$" not in query
    return query


def _listens(port: int) -> bool:
    try:
        return asyncio.run(get(port, "/-/ready")).status == 200
    except OSError:
        return False
