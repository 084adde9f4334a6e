"""Blocking calls, each on its own daemon thread: one that hangs delays only its caller."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OwnThread:
    """Runs blocking calls one at a time, separately from all others: for files that may be slow, and the like."""

    def __init__(self) -> None:
        self._call: asyncio.Task[object] | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, or raise what it raises, after waiting for the previous call.

        May be cancelled: the call continues, and the next one waits for it.
        """
        while self._call is not None and not self._call.done():
            await asyncio.wait({self._call})
        call = asyncio.create_task(in_own_thread(function, *args, **kwargs))
        self._call = call
        call.add_done_callback(retrieve_error)
        return await asyncio.shield(call)


def retrieve_error(task: "asyncio.Task[T]") -> None:
    """Retrieve the exception of a finished task that may no longer be awaited."""
    if not task.cancelled():
        task.exception()


async def in_own_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns, or raise what it raises.

    asyncio's own executor shares a few threads among all calls, and an abandoned call keeps its thread. Callers bound
    how many calls they have in progress; the thread of a call that never returns ends with the process.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if ended.done():  # abandoned meanwhile
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:  # noqa: BLE001 - raised where it is awaited
            error = exc
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=getattr(function, "__name__", "call"), daemon=True).start()
    return await ended
