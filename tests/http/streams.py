"""Open streams of `GET /tasks`, and read them."""

import json
from typing import Any

from tests.http.site import Web

LINES = {"Accept": "application/x-ndjson"}


def read(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the tasks and how the stream ended."""
    assert body.endswith(b"\n")
    *tasks, last = [json.loads(line) for line in body[:-1].split(b"\n")]
    assert list(last) == ["end"]
    assert all("id" in task for task in tasks)
    end: dict[str, Any] = last["end"]
    return tasks, end


def ids(tasks: list[dict[str, Any]]) -> list[int]:
    """Return their places in the list."""
    return [task["id"] - 1000 for task in tasks]


async def stream(web: Web, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Open a stream, which must begin normally."""
    answer = await web.get(f"/tasks?{query}", LINES)
    assert answer.status_code == 200, answer.text
    return read(answer.content)
