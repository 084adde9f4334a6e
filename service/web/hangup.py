"""Cancellation of work when the caller disconnects; Litestar does not cancel the handler by itself."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar.types import Receive

from service.observe.request import RequestContext

T = TypeVar("T")

UNWATCHED_S = 0.02
"""Most responses are ready sooner than this; only slower ones justify a task that watches the connection."""

CANCEL_MAX_S = 5.0
"""Maximum wait for cancelled work to end."""


async def unless_hung_up(work: Coroutine[Any, Any, T], *, receive: Receive, context: RequestContext) -> T | None:
    """Return the result of `work`. If the caller disconnects first, cancel it, record that in `context` and return
    None."""
    task = _start(work)
    watcher: asyncio.Task[None] | None = None
    try:
        if not task.done():
            await asyncio.sleep(0)  # enough for a response from memory, at a fraction of the cost of `wait`
        if not task.done():
            await asyncio.wait({task}, timeout=UNWATCHED_S)
        if not task.done():
            watcher = asyncio.create_task(_hang_up(receive))
            await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        context.hung_up = True
        return None
    finally:
        leftover = {each for each in (task, watcher) if each is not None and not each.done()}
        for each in leftover:
            each.cancel()
        if leftover:
            await asyncio.wait(leftover, timeout=CANCEL_MAX_S)


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    if sys.version_info >= (3, 12):  # work that does not wait then needs no event loop iteration
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.create_task(work)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
