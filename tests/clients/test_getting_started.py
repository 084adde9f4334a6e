"""The page "Getting started" of the contract: each of its samples runs unchanged."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from service.web.openapi.document import openapi_document
from tests.commands import run
from tests.scenes.fleet import fleet, key_of
from tests.servers import Server

pytestmark = pytest.mark.scene

QUESTIONS = (
    "Get a page of what is due tomorrow",
    "Walk all pages",
    "Poll cheaply",
    "Find one task",
    "When a request fails",
)


@pytest.fixture
async def environment(own_valkey: Server) -> AsyncIterator[dict[str, str]]:
    """The variables that the samples read, for a gateway whose pages stay fresh for a second."""
    sections = {"budget": {"calls": 50}, "cache": {"fresh_s": 1.0, "settled_s": 1.0}}
    async with fleet(own_valkey, replicas=1, sandbox_calls=50, **sections) as gateways:
        yield {"TASKGATE_URL": f"http://127.0.0.1:{gateways.replicas[0].port}", "TASKGATE_KEY": key_of("c0")}


def sections() -> dict[str, str]:
    """The guide's answers by their questions."""
    description = json.loads(openapi_document())["info"]["description"]
    parts = re.split(r"^##? (.+)$", description, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def sample(question: str, language: str) -> str:
    """The one sample of an answer."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", sections()[question], flags=re.MULTILINE | re.DOTALL)
    return str(code)


async def shell(question: str, environment: Mapping[str, str], directory: Path) -> str:
    """Return the standard output of a shell sample."""
    script = directory / "sample.sh"
    script.write_text(sample(question, "sh").replace("curl ", "curl --no-progress-meter "))
    return await run("bash", script, cwd=directory, environment={**os.environ, **environment})


async def python(question: str, environment: Mapping[str, str], directory: Path) -> str:
    """Return the output of a Python sample."""
    (directory / "sample.py").write_text(sample(question, "python"))
    return await run(sys.executable, "sample.py", cwd=directory, environment={**os.environ, **environment})


def test_the_questions_in_their_order() -> None:
    """The guide answers these questions, in this order, and its last section has a line for each status."""
    assert tuple(question for question in sections() if question in QUESTIONS) == QUESTIONS
    rows = re.findall(r"^\| (\d{3}) \| (.+) \|$", sections()[QUESTIONS[-1]], flags=re.MULTILINE)
    assert [status for status, _ in rows] == ["401", "403", "404", "429", "502", "503"]


async def test_due_tomorrow(environment: dict[str, str], tmp_path: Path) -> None:
    """The page has the tasks of tomorrow, all of that day."""
    page = json.loads(await shell("Get a page of what is due tomorrow", environment, tmp_path))
    day = (datetime.now(UTC) + timedelta(days=1)).date()
    assert (page["since"], page["until"]) == (f"{day}T00:00:00Z", f"{day}T23:59:59Z")
    assert page["total"] >= len(page["tasks"]) > 0
    assert {task["scheduled_at"][:10] for task in page["tasks"]} == {str(day)}


async def test_walk(environment: dict[str, str], tmp_path: Path) -> None:
    """The sample visits every task."""
    assert await python("Walk all pages", environment, tmp_path) == f"{await total(environment)} tasks\n"


async def total(environment: Mapping[str, str]) -> int:
    """How many tasks were created in the last thirty days."""
    fields = {"Authorization": f"Bearer {environment['TASKGATE_KEY']}"}
    since = str(datetime.now().astimezone().date() - timedelta(days=30))
    asked = {"since": since, "until": "now", "sort": "created_at", "limit": "1"}
    async with httpx.AsyncClient(base_url=environment["TASKGATE_URL"], headers=fields) as client:
        answer = await client.get("/tasks", params=asked)
        return int(answer.json()["total"])


async def test_poll(environment: dict[str, str], tmp_path: Path) -> None:
    """The first answer is a page, the others are 304, though the page was renewed meanwhile."""
    first, *others = (await python("Poll cheaply", environment, tmp_path)).splitlines()
    assert re.fullmatch(r"\d+ tasks", first)
    assert others == ["unchanged", "unchanged"]


async def test_find(environment: dict[str, str], tmp_path: Path) -> None:
    """Only the line of the task is left."""
    fields = {"Authorization": f"Bearer {environment['TASKGATE_KEY']}"}
    async with httpx.AsyncClient(base_url=environment["TASKGATE_URL"], headers=fields) as client:
        page = (await client.get("/tasks", params={"q": "sale", "offset": 7, "limit": 1})).json()
    wanted = page["tasks"][0]
    found = await shell("Find one task", environment | {"TASK_ID": str(wanted["id"])}, tmp_path)
    assert json.loads(found) == wanted


async def test_failures(environment: dict[str, str], tmp_path: Path) -> None:
    """The page is read; with a wrong key the problem is reported at once."""
    assert re.fullmatch(r"\d+ tasks\n", await python("When a request fails", environment, tmp_path))
    with pytest.raises(AssertionError, match=r"401 .+: .+ \([0-9a-f]{32}\)"):
        await python("When a request fails", environment | {"TASKGATE_KEY": "wrong"}, tmp_path)
