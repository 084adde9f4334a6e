"""How `taskgate tasks` displays tasks and progress. Nothing in a task reaches the terminal as a control sequence."""

import re
import shutil
import time
import unicodedata
from typing import TextIO

from service.commands.tasks_client import ReceivedLine

_BAR = 20
_REDRAW_S = 0.1
_ERASE = "\r\x1b[K"
# Controls (C0, DEL, C1), bidirectional and invisible formatting characters, line separators, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_COLUMNS = "{:>20}  {:<11}  {:<6}  {:<20}  {}"


def printable(text: str) -> str:
    """Return the text with everything that a terminal would obey or hide written as escapes."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def as_json(text: str) -> str:
    """Return JSON text with the same characters as JSON escapes; they occur only in strings, so the value is equal."""
    return _UNSAFE.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def row(task: ReceivedLine, *, width: int | None = None) -> str:
    """Return a task as a row of the table, cut to `width` columns."""
    cells = (str(task.id), task.status or "", task.type or "", task.scheduled_at or "", task.title or "")
    return _row(cells, width)


def _row(cells: tuple[str, ...], width: int | None) -> str:
    text = _COLUMNS.format(*(printable(cell) for cell in cells))
    return text if width is None else _cut(text, width)


class Printer:
    """Print tasks to `out`, as a table or as one JSON object per line."""

    def __init__(self, out: TextIO, *, form: str) -> None:
        self.count = 0
        self._out = out
        self._is_table = form == "table"
        self._width = shutil.get_terminal_size().columns if out.isatty() else None

    def print(self, line: tuple[str, ReceivedLine]) -> None:
        """Print one task."""
        text, task = line
        if self._is_table:
            if not self.count:
                self._out.write(_row(("ID", "STATUS", "TYPE", "SCHEDULED", "TITLE"), self._width) + "\n")
            self._out.write(row(task, width=self._width) + "\n")
        else:
            self._out.write(as_json(text) + "\n")
        self.count += 1

    def close(self) -> None:
        """Write what is buffered."""
        self._out.flush()


class Progress:
    """A progress line on `err`, if `shown`."""

    def __init__(self, err: TextIO, *, shown: bool) -> None:
        self.shown = shown
        self._err = err
        self._is_drawn = False
        self._drawn_at_s = 0.0
        self._began_s = time.monotonic()
        self._left: int | None = None
        self._is_filtered = False
        self._count = 0

    def show_wait(self, estimate_s: float | None) -> None:
        """Show that the first block is being awaited."""
        about = "" if estimate_s is None else f", {_seconds(estimate_s)} at most" if estimate_s >= 1 else ", briefly"
        self._draw(f"waiting for a turn{about}")

    def start(self, *, total: int | None, offset: int, is_filtered: bool) -> None:
        """Record the first block, which says how many tasks match."""
        self._began_s = time.monotonic()
        self._left = None if total is None else max(total - offset, 0)
        self._is_filtered = is_filtered

    def advance(self) -> None:
        """Count one more task."""
        self._count += 1
        if self.shown and time.monotonic() - self._drawn_at_s >= _REDRAW_S:
            self._draw(self._text(time.monotonic() - self._began_s))

    def clear(self) -> None:
        """Remove the line, before anything else is written."""
        if self._is_drawn:
            self._err.write(_ERASE)
            self._err.flush()
            self._is_drawn = False

    def _text(self, took_s: float) -> str:
        if not self._left:
            return f"{self._count:,} tasks"
        if self._is_filtered:
            return f"{self._count:,} tasks, of {self._left:,} to search"
        share = min(self._count / self._left, 1.0)
        filled = int(share * _BAR)
        left_s = took_s * (1 / share - 1)
        bar = "#" * filled + "." * (_BAR - filled)
        return f"[{bar}] {self._count:,} of {self._left:,}, {_seconds(left_s)} to go"

    def _draw(self, text: str) -> None:
        if self.shown:
            self._err.write(f"{_ERASE}{text}")
            self._err.flush()
            self._is_drawn, self._drawn_at_s = True, time.monotonic()


def _seconds(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _cut(text: str, width: int) -> str:
    """Return as much of the text as fits; wide characters take two columns."""
    used = 0
    for position, char in enumerate(text):
        used += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used > width:
            return text[:position]
    return text
