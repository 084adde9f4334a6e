"""Writes lines to a file descriptor that may fail, and may work again later."""

import os
import select
from io import UnsupportedOperation
from typing import TextIO

READY_S = 1.0
"""How long to wait at a time until a non-blocking descriptor accepts more."""


class LogSink:
    """Writes whole lines to a stream, bypassing its buffers: bytes left in a buffer after a failure would be written
    again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._fd = _fd_of(stream)
        self._is_line_incomplete = False

    def write(self, lines: str) -> None:
        """Write the lines and a line end. Raise OSError; then none, or only a part, of them was written."""
        if self._fd is None:
            try:
                self._stream.write(f"{lines}\n")
                self._stream.flush()
            except ValueError as exc:
                raise OSError("the stream is closed") from exc
            return
        end = "\n" if self._is_line_incomplete else ""  # so that these lines don't continue one that was cut off
        rest = memoryview(f"{end}{lines}\n".encode(errors="backslashreplace"))
        whole = len(rest)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        finally:
            if rest.nbytes < whole:
                self._is_line_incomplete = rest.nbytes > 0

    def _write_some(self, data: memoryview) -> int:
        """Write as much as the descriptor accepts, and return the number of bytes."""
        assert self._fd is not None  # noqa: S101 - narrows the type
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # another process has set the terminal or pipe that it shares with us so
            select.select([], [self._fd], [], READY_S)
            return 0


def _fd_of(stream: TextIO) -> int | None:
    """Return the stream's descriptor; None for a stream in memory."""
    try:
        return stream.fileno()
    except (UnsupportedOperation, ValueError):
        return None
