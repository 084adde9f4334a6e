"""Logs: events with fields, one per line on stderr, as JSON or for people. Masking secrets is a last line of defence.

Lines are rendered where the event occurs and written by a thread: if the reader of stderr stalls, lines are dropped
(and counted), but the event loop is not blocked.
"""

import atexit
import logging
import math
import queue
import re
import sys
import threading
from contextlib import nullcontext
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

VALUE_MAX_CHARS = 300
DEPTH_MAX = 8
ITEMS_MAX = 50
QUEUE_MAX_LINES = 10_000
FLUSH_S = 1.0
MASK = "***"

_SECRET_NAMES = re.compile(r"authorization|usersig|secret|password|credential|token|(^|[_.-])keys?$", re.IGNORECASE)
_SECRET_TEXTS = re.compile(
    r"""(usersig=)[^&\s"']+ | (\bBearer\s+)[^\s"',]+ | (\b[a-z][a-z0-9+.-]*://[^\s:/@"']*:)[^\s@/"']+(?=@)""",
    re.IGNORECASE | re.VERBOSE,
)
_TALKATIVE = ("httpx", "httpcore")


def configure(level: str, *, as_json: bool, stream: TextIO | None = None) -> "LineWriter":
    """Send structlog's and the standard library's logs to `stream` (default: stderr). A later call replaces the set-up.

    Return the line writer, for events that are rendered elsewhere.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, LineWriter)]:
        root.removeHandler(old)
        old.close()
    writer = LineWriter(stream or sys.stderr)
    writer.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
                ),
                clean_fields,
                _as_json if as_json else structlog.dev.ConsoleRenderer(colors=_is_terminal(stream or sys.stderr)),
            ],
        )
    )
    root.addHandler(writer)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    return writer


def clean_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Mask fields whose name or value looks like a secret, and truncate long values."""
    del logger, method
    return {str(name): _clean(name, value, 0) for name, value in event.items()}


class LineWriter(logging.Handler):
    """Writes rendered lines from its own thread; queues at most `QUEUE_MAX_LINES` and counts the lines it drops."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[tuple[str, int] | None] = queue.Queue(QUEUE_MAX_LINES)
        self._dropped = 0
        self._given = self._written = 0
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a field that cannot be rendered must not break the code that logs it
            line = f'{{"level":"error","event":"logs.unrenderable","logger":"{record.name}"}}'
        self.write(line, 1)

    def write(self, lines: str, count: int) -> None:
        """Queue all of the lines unchanged, or none of them if the queue is too full."""
        with self.lock or nullcontext():
            if self._given - self._written + count > QUEUE_MAX_LINES:
                self._dropped += count
                return
            self._given += count
            self._lines.put_nowait((lines, count))

    def close(self) -> None:
        """Write the remaining lines, within `FLUSH_S` seconds."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=FLUSH_S)
            except queue.Full:
                pass
            else:
                self._thread.join(FLUSH_S)
        super().close()

    def _write(self) -> None:
        while (given := self._lines.get()) is not None:
            lines, count = given
            self._written += count
            if self._dropped:
                self._dropped, dropped = 0, self._dropped
                lines += f'\n{{"level":"warning","event":"logs.dropped","lines":{dropped}}}'
            try:
                self._stream.write(lines + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # stderr is gone, so there is nowhere to report this


def _clean(name: object, value: object, depth: int) -> object:
    if isinstance(name, str) and _SECRET_NAMES.search(name) and value is not None:
        return MASK
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case dict() if depth < DEPTH_MAX:
            items = list(value.items())[:ITEMS_MAX]
            return {str(key): _clean(key, item, depth + 1) for key, item in items}
        case list() | tuple() | set() | frozenset() if depth < DEPTH_MAX:
            return [_clean(None, item, depth + 1) for item in list(value)[:ITEMS_MAX]]
    return _bounded(value if isinstance(value, str) else repr(value))


def _bounded(text: str) -> str:
    if len(text) > VALUE_MAX_CHARS:
        # Mask before the final truncation, which could split a secret; truncate before masking, since regexes are
        # expensive.
        text = text[: VALUE_MAX_CHARS * 4]
    text = _SECRET_TEXTS.sub(lambda found: next(filter(None, found.groups())) + MASK, text)
    return text if len(text) <= VALUE_MAX_CHARS else text[: VALUE_MAX_CHARS - 1] + "…"


def _as_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    del logger, method
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    ordered: dict[str, Any] = {**first, **event}
    return msgspec.json.encode(ordered, enc_hook=repr).decode()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False
