"""`taskgate tasks --watch`: follow a list, as a live table on a terminal and as lines otherwise."""

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import msgspec

from service.commands.tasks_client import GatewayConnection, GatewayFailed, ReceivedLine, TasksRequest
from service.commands.tasks_output import as_json, printable, row

_HOME_AND_ERASE = "\x1b[H\x1b[J"
RETRY_MAX_S = 15.0


class ReceivedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event; `data` is its JSON text."""

    id: str
    name: str
    data: str


class ReceivedEventData(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of all events but `task` and `added`."""

    id: int = 0
    status: str | None = None
    reason: str = ""
    fields: tuple[str, ...] = ()
    task: msgspec.Raw = msgspec.Raw(b"{}")
    as_of: str = ""
    problem: dict[str, Any] | None = None


class EventPrinter:
    """Prints events as they arrive: lines of text or JSON, or on a terminal the whole list again."""

    def __init__(self, out: TextIO, *, form: str) -> None:
        self._out = out
        self._form = form
        self._is_live = form == "table" and out.isatty()
        self._tasks: dict[int, ReceivedLine] = {}
        self._state = "connecting"

    def print_event(self, event: ReceivedEvent) -> None:
        """Print one event."""
        if self._form == "ndjson":
            self._out.write(as_json(f'{{"event":"{event.name}","data":{event.data}}}') + "\n")
        else:
            line = self._apply(event)
            if self._is_live:
                if event.name != "task":
                    self._draw()
            elif line is not None:
                self._out.write(line + "\n")
        self._out.flush()

    def _apply(self, event: ReceivedEvent) -> str | None:
        """Apply the event to the list; return its line."""
        if event.name in ("task", "added"):
            task = msgspec.json.decode(event.data, type=ReceivedLine)
            self._tasks[task.id] = task
            return self._line(event.name, task)
        data = msgspec.json.decode(event.data, type=ReceivedEventData)
        match event.name:
            case "changed":
                task = msgspec.json.decode(data.task, type=ReceivedLine)
                self._tasks[task.id] = task
                return self._line("changed", task) + f"  ({', '.join(map(printable, data.fields))})"
            case "removed":
                self._tasks.pop(data.id, None)
                status = printable(data.status or "unknown")
                return f"{'removed':<8} {data.id:>20}  ({printable(data.reason)}, last status {status})"
            case "synced":
                self._state = f"as of {printable(data.as_of)}"
                return None
            case "reset":
                self._tasks.clear()
                return "reset    the whole list follows"
            case _:
                title = printable(str((data.problem or {}).get("title", "the upstream can't be reached")))
                self._state = f"{event.name}: {title}"
                return f"{event.name:<8} {title}"

    @staticmethod
    def _line(name: str, task: ReceivedLine) -> str:
        return f"{name:<8} {row(task)}"

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        rows = [row(task, width=size.columns) for task in self._tasks.values()][: max(size.lines - 2, 1)]
        head = f"{len(self._tasks)} tasks, {self._state}"
        self._out.write(_HOME_AND_ERASE + "\n".join((head, *rows)))


def watch_tasks(request: TasksRequest, key: str, *, form: str) -> int:
    """Follow the list until Ctrl-C, which ends with 0; reconnect if the connection is lost.

    Raise GatewayRefused, and GatewayFailed if the first connection fails.
    """
    printer, last_id, failures = EventPrinter(sys.stdout, form=form), "", 0
    try:
        while True:
            try:
                with GatewayConnection(request, key=key) as connection:
                    for event in read_events(connection.watch(last_id)):
                        printer.print_event(event)
                        last_id, failures = event.id, 0
            except GatewayFailed:
                if not last_id:
                    raise
            failures += 1
            time.sleep(min(0.1 * 2**failures, RETRY_MAX_S))
    except KeyboardInterrupt:
        return 0


def read_events(lines: Iterator[bytes]) -> Iterator[ReceivedEvent]:
    """Read server-sent events (WHATWG HTML, section 9.2.6), as far as the gateway uses them."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        if text and not text.startswith(":"):
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif not text:
            if "event" in fields:
                yield ReceivedEvent(id=fields.get("id", ""), name=fields["event"], data=fields.get("data", "{}"))
            fields.clear()
