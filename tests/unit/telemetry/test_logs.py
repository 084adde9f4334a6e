"""The form of log lines, and what they never contain."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import structlog

from service.telemetry import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restore the logging configuration."""
    root = logging.getLogger()
    level = root.level
    configuration = structlog.get_config()
    yield
    for handler in list(root.handlers):
        if isinstance(handler, logs.LogWriter):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**configuration)


class Output(io.StringIO):
    """A stream that collects the lines."""

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written, after all of it has been."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logs.LogWriter):
                handler.close()
        return [json.loads(line) for line in self.getvalue().splitlines()]


def test_events_and_the_standard_librarys_records_become_json_lines() -> None:
    """Both have a timestamp in UTC, a level, an event and fields; events below the level are left out."""
    output = Output()
    logs.configure("info", as_json=True, stream=output)
    structlog.get_logger().info("fetch.done", app="shop", took_s=0.5, nothing=None, far=float("inf"))
    structlog.get_logger().debug("never")
    logging.getLogger("redis").warning("gone %s", "away")
    logging.getLogger("httpx").info("GET https://upstream/?usersig=hunter2")
    first, second = output.lines()
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "info",
        "event": "fetch.done",
        "app": "shop",
        "took_s": 0.5,
        "nothing": None,
        "far": "inf",
    }
    assert (second["level"], second["event"], second["logger"]) == ("warning", "gone away", "redis")


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "hunter2"},
        {"headers": {"Authorization": "Bearer hunter2"}},
        {
            "usersig": "hunter2",
            "secret": b"hunter2",
            "redis_password": "hunter2",
            "key": "hunter2",
            "keys": ["hunter2"],
        },
        {"url": "https://h/x?usersig=hunter2&random=1"},
        {"url": "redis://user:hunter2@h:1/0"},
        {"said": "got Bearer hunter2, refused"},
        {"deep": [{"a": ({"password": "hunter2"},)}]},
        {"long": "x" * 280 + "usersig=hunter2" + "y" * 300},
    ],
)
def test_secrets_are_masked(fields: dict[str, Any]) -> None:
    """A field named like a secret, and a text that looks like one, are masked wherever they stand."""
    output = Output()
    logs.configure("debug", as_json=True, stream=output)
    structlog.get_logger().info("event", **fields)
    logging.getLogger("foreign").info("said %s", fields)
    assert len(output.lines()) == 2
    structured = output.getvalue().splitlines()[0]
    assert "hunter2" not in structured
    assert logs.MASK in structured


def test_values_are_bounded() -> None:
    """No value is longer than the bound, however long the text, the list or the nesting that was logged."""
    nested: Any = "end"
    for _ in range(100):
        nested = [nested]
    output = Output()
    logs.configure("debug", as_json=True, stream=output)
    structlog.get_logger().info("event", text="x" * 10_000_000, items=list(range(1000)), nested=nested, odd=object)
    (line,) = output.lines()
    assert len(line["text"]) == logs.VALUE_MAX_CHARS
    assert len(line["items"]) == logs.ITEMS_MAX
    assert len(output.getvalue()) < 3000


def test_a_traceback_is_structured_and_shows_no_local_variables() -> None:
    """An exception is logged with its frames and text, without local variables."""
    output = Output()
    logs.configure("debug", as_json=True, stream=output)
    held = "hunter" + "2"
    try:
        date.fromisoformat("never")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("foreign").exception("failed too")
    for line in output.lines():
        assert line["exception"][0]["exc_value"] == "Invalid isoformat string: 'never'"
        assert line["exception"][0]["frames"]
    assert held not in output.getvalue()


def test_a_stalled_reader_of_stderr_does_not_block() -> None:
    """With stderr's pipe full, logging returns at once, and what was dropped is counted when it flows again."""
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read) as reader:
        logs.configure("info", as_json=True, stream=stream)
        log = structlog.get_logger()
        begun = time.monotonic()
        for _ in range(logs.QUEUE_MAX_LINES + 2000):
            log.info("event", text="x" * 200)
        assert time.monotonic() - begun < 30  # a blocking write would never end
        log_lines: list[str] = []
        draining = threading.Thread(target=lambda: log_lines.extend(reader))
        draining.start()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logs.LogWriter):
                handler.close()
        stream.close()
        draining.join(10)
    dropped = [json.loads(line)["lines"] for line in log_lines if "logs.lost" in line]
    assert sum(dropped) > 0
    assert sum(dropped) + len(log_lines) - len(dropped) == logs.QUEUE_MAX_LINES + 2000


_FULL = """
import resource, sys, time, structlog
from pathlib import Path
from service.telemetry import logs
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))  # EFBIG, like ENOSPC after what still fits
logs.configure("info", as_json=True)
log = structlog.get_logger()
for number in range(100):
    log.info("early", number=number, text="x" * 100)
while Path(sys.argv[1]).read_bytes().count(b"\\n") + logs.lost_log_lines()["not written"] < 100:
    time.sleep(0.01)
print(logs.lost_log_lines()["not written"], flush=True)
sys.stdin.readline()
log.info("late")
log.info("later")
"""


def test_logging_continues_after_a_full_disk(tmp_path: Path) -> None:
    """Lines that can't be written are counted; when there is room again, one line says how many, and none is torn."""
    file = tmp_path / "log"
    with file.open("ab") as stderr:
        command = [sys.executable, "-c", _FULL, str(file)]
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=stderr, text=True) as process:
            assert process.stdout is not None
            lost = int(process.stdout.readline())
            early = file.read_text().splitlines()
            assert 0 < lost < 100
            assert len(early) == 100 - lost + 1, "the last one is cut off"
            os.truncate(file, 0)
            process.communicate("\n", timeout=30)
    blank, late, lost_line, later = file.read_text().split("\n")[:4]
    assert blank == "", "the end of the torn line"
    assert [json.loads(line)["event"] for line in (late, lost_line, later)] == ["late", "logs.lost", "later"]
    assert json.loads(lost_line)["lines"] == lost


def test_a_terminal_gets_lines_for_people() -> None:
    """In the console format, the event and its fields are on one readable line."""
    output = Output()
    logs.configure("info", as_json=False, stream=output)
    structlog.get_logger().info("fetch.done", app="shop", key="hunter2")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logs.LogWriter):
            handler.close()
    assert "fetch.done" in output.getvalue()
    assert "app=shop" in output.getvalue()
    assert "hunter2" not in output.getvalue()
