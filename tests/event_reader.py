"""Server-sent events as a client reads them, and the list reconstructed from them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

EVENT_STREAM = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """One event: its id, its name, and its data, decoded."""

    id: str
    name: str
    data: Any


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """Return the events of an answer, by WHATWG HTML, section 9.2.6, as far as it is used here."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line:
            if "event" in fields:
                yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


@dataclass
class Mirror:
    """A watched list as reconstructed from its events; each must fit the current list, so none may come twice."""

    tasks: dict[int, Any] = field(default_factory=dict)
    last_id: str = ""
    names: list[str] = field(default_factory=list)
    is_whole: bool = False

    def take(self, event: Event) -> None:
        """Apply one event."""
        self.last_id = event.id
        self.names.append(event.name)
        match event.name:
            case "reset":
                self.tasks.clear()
                self.is_whole = False
            case "task":
                assert not self.is_whole, "a whole list is sent once"
                self.tasks[event.data["id"]] = event.data
            case "added":
                assert event.data["id"] not in self.tasks
                self.tasks[event.data["id"]] = event.data
            case "changed":
                task, held = event.data["task"], self.tasks[event.data["task"]["id"]]
                assert set(event.data["fields"]) == {name for name in task if task[name] != held[name]}
                self.tasks[task["id"]] = task
            case "removed":
                del self.tasks[event.data["id"]]
            case "synced":
                self.is_whole = True
                assert event.data["count"] == len(self.tasks)
