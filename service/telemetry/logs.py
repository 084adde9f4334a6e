"""Logs: events with fields, one per line on stderr, as JSON or for people. Masking secrets is a last line of defence.

Lines are rendered where the event occurs and written by a thread: if the reader of stderr stalls, lines are lost, but
the event loop is not blocked. Lines are also lost while stderr can't be written to (a full disk, a closed pipe). They
are counted, and their number is logged when writing works again.
"""

import atexit
import logging
import math
import queue
import re
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, get_args

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.telemetry.log_sink import LogSink

VALUE_MAX_CHARS = 300
DEPTH_MAX = 8
ITEMS_MAX = 50
QUEUE_MAX_LINES = 10_000
FLUSH_S = 1.0
MASK = "***"

LossReason = Literal["queue full", "not written"]
"""Why lines are lost: they arrive faster than they are written, or stderr can't be written to."""

_SECRET_NAMES = re.compile(r"authorization|usersig|secret|password|credential|token|(^|[_.-])keys?$", re.IGNORECASE)
_SECRET_TEXTS = re.compile(
    r"""(usersig=)[^&\s"']+ | (\bBearer\s+)[^\s"',]+ | (\b[a-z][a-z0-9+.-]*://[^\s:/@"']*:)[^\s@/"']+(?=@)""",
    re.IGNORECASE | re.VERBOSE,
)
_VERBOSE_LOGGERS = ("httpx", "httpcore")


def configure(level: str, *, as_json: bool, stream: TextIO | None = None) -> "LogWriter":
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
    for old in [handler for handler in root.handlers if isinstance(handler, LogWriter)]:
        root.removeHandler(old)
        old.close()
    stream = stream or sys.stderr
    writer = LogWriter(stream)
    writer.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
                ),
                clean_fields,
                _as_json if as_json else structlog.dev.ConsoleRenderer(colors=_is_terminal(stream)),
            ],
        )
    )
    root.addHandler(writer)
    root.setLevel(number)
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    return writer


def clean_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Mask fields whose name or value looks like a secret, and truncate long values."""
    del logger, method
    return {str(name): _clean(name, value, 0) for name, value in event.items()}


class LogWriter(logging.Handler):
    """Writes rendered lines from its own thread; queues at most `QUEUE_MAX_LINES`, and counts lost lines in `lost`."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.lost: Counter[LossReason] = Counter(dict.fromkeys(get_args(LossReason), 0))
        self._sink = LogSink(stream)
        self._lines: queue.Queue[tuple[str, int] | None] = queue.Queue(QUEUE_MAX_LINES)
        self._reported = 0
        self._queued = self._written = 0
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
            if self._queued - self._written + count > QUEUE_MAX_LINES:
                self.lost["queue full"] += count
                return
            self._queued += count
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
        while (queued := self._lines.get()) is not None:
            lines, count = queued
            self._written += count
            try:
                self._sink.write(lines)
            except OSError:
                self.lost["not written"] += count
                continue
            self._report()

    def _report(self) -> None:
        """Log how many lines have been lost since the last such report, if any; try again later if that fails."""
        total = self.lost.total()
        if total > self._reported:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            line = {"timestamp": now, "level": "warning", "event": "logs.lost", "lines": total - self._reported}
            with suppress(OSError):
                self._sink.write(msgspec.json.encode(line).decode())
                self._reported = total


def lost_log_lines() -> Mapping[LossReason, int]:
    """Return how many lines this process has lost so far, by reason."""
    writers = [handler for handler in logging.getLogger().handlers if isinstance(handler, LogWriter)]
    return {reason: sum(writer.lost[reason] for writer in writers) for reason in get_args(LossReason)}


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
    return _mask_and_truncate(value if isinstance(value, str) else repr(value))


def _mask_and_truncate(text: str) -> str:
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
