"""A real Prometheus scrapes two replicas and can answer what docs/metrics.md says that it can."""

import asyncio
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.scenes.fleet import APP, Fleet, fleet, get
from tests.servers import Server, _die_with_parent, eventually, free_port

pytestmark = pytest.mark.prometheus

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


@contextmanager
def prometheus(*targets: int) -> Iterator[int]:
    """Prometheus on a free port, scraping these ports four times a second."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        job = {"job_name": "taskgate", "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}]}
        config = {"global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"}, "scrape_configs": [job]}
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
                preexec_fn=_die_with_parent,
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


async def some_requests(at: Fleet, *, rounds: int) -> None:
    """Hits, fetches and refusals on both replicas, over some scrapes."""
    for number in range(rounds):
        for replica in range(len(at.replicas)):
            await at.page(replica, q=f"{number % 4}", caller="c0")
            await at.page(replica, q=f"{number}", caller="c1", wait=0)
            await at.page(replica, q="renewed", caller="c1", headers={"Cache-Control": "no-cache"})
        await asyncio.sleep(0.25)


async def test_prometheus_scrapes_and_answers(valkey: Server) -> None:
    """Both replicas are up, no sample is refused, and every documented question has an answer about the app."""
    async with fleet(valkey, replicas=2, weights={"c0": 1.0, "c1": 2.0}) as at:
        with prometheus(*(replica.metrics_port for replica in at.replicas)) as port:
            await asyncio.to_thread(eventually, lambda: _listens(port))
            async with asyncio.timeout(20):  # it looks for targets every 5 s
                while [row["value"][1] for row in await answer(port, "up")] != ["1", "1"]:
                    await asyncio.sleep(0.1)
            await some_requests(at, rounds=10)
            dropped = await answer(port, "sum(prometheus_target_scrapes_sample_duplicate_timestamp_total)")
            assert dropped == [] or dropped[0]["value"][1] == "0"
            calls = await answer(port, "sum(taskgate_upstream_calls_total)")
            assert 1 <= float(calls[0]["value"][1]) <= await at.calls() + len(at.replicas)
            questions = re.findall(r"^```promql\n(.+?)\n```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
            assert len(questions) >= 9
            for question in questions:
                rows = await answer(port, question)
                assert rows or "throttled" in question, question
                assert all(row["metric"].get("app", APP.name) == APP.name for row in rows)
                assert all(row["value"][1] not in ("NaN", "+Inf") or "histogram" in question for row in rows), question


def _listens(port: int) -> bool:
    try:
        return asyncio.run(get(port, "/-/ready")).status == 200
    except OSError:
        return False
