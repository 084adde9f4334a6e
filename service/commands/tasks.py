"""`taskgate tasks`: list an app's tasks from a gateway, in readable form."""

import itertools
import os
import sys

from service.commands.tasks_client import GatewayConnection, GatewayFailed, GatewayRefused, ReceivedStream, TasksRequest
from service.commands.tasks_output import Printer, Progress, printable
from service.commands.tasks_watch import watch_tasks

COMPLETE, FAILED, FAULTY = 0, 1, 2

KEY_VARIABLE = "TASKGATE_KEY"


def run(request: TasksRequest, *, key: str | None, form: str, limit: int | None, watched: bool) -> int:
    """Print the tasks as they arrive, or with `watched` their changes. Return the exit status.

    0: all were listed; 1: some are missing; 2: the request or the key is invalid.
    """
    key = key or os.environ.get(KEY_VARIABLE)
    if not key:
        return _report(f"no key: set {KEY_VARIABLE} or use --key", FAULTY)
    if limit is not None and limit < 1:
        return _report("--limit must be 1 or more", FAULTY)
    if watched and (limit is not None or request.offset):
        return _report("--watch follows the whole list; --limit and --offset do not apply", FAULTY)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # whatever the terminal can't show
    progress = Progress(sys.stderr, shown=sys.stderr.isatty())
    try:
        if watched:
            return watch_tasks(request, key, form=form)
        return _list(request, key, Printer(sys.stdout, form=form), progress, limit)
    except GatewayRefused as exc:
        progress.clear()
        return _report(str(exc), FAULTY)
    except GatewayFailed as exc:
        progress.clear()
        return _report(str(exc), FAILED)
    finally:
        progress.clear()


def _list(request: TasksRequest, key: str, printer: Printer, progress: Progress, limit: int | None) -> int:
    with GatewayConnection(request, key=key) as connection:
        if progress.shown:
            progress.show_wait(connection.estimate_s())
        answer = connection.stream()
        progress.start(total=answer.total, offset=request.offset, is_filtered=request.is_filtered)
        for line in itertools.islice(answer.lines(), limit):
            progress.clear()
            printer.print(line)
            progress.advance()
        printer.close()
        progress.clear()
        if answer.end is None and limit is not None and printer.count == limit:
            return COMPLETE
        return _report_end(answer, printer.count, request)


def _report_end(answer: ReceivedStream, count: int, request: TasksRequest) -> int:
    """Report how the stream ended; return the exit status."""
    end = answer.end
    if end is None or end.count != count:
        hint = "" if request.is_filtered else f"; continue with --offset {request.offset + count}"
        return _report(f"the stream was cut off after {count} tasks{hint}", FAILED)
    if end.missing:
        _report(f"warning: {end.missing} tasks are missing: the upstream counts them but did not return them", COMPLETE)
    if end.changed:
        _report("warning: the list changed meanwhile: tasks may be missing or repeated", COMPLETE)
    if end.stale:
        _report(f"warning: the upstream could not be reached: some tasks were fetched at {end.fetched_at}", COMPLETE)
    if end.complete:
        return COMPLETE
    why = "no reason given" if end.problem is None else end.problem.text
    offset = end.offset
    hint = "" if offset is None else f"\ncontinue with --offset {offset}"
    return _report(f"the list ended early, after {count} tasks: {why}{hint}", FAILED)


def _report(text: str, status: int) -> int:
    """Print a text to stderr, without control sequences; return the status."""
    lines = "\n".join(printable(line) for line in text.split("\n"))
    print(f"taskgate tasks: {lines}", file=sys.stderr)
    return status
