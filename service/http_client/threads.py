"""Blocking calls, each on a daemon thread of its own: one that hangs delays nobody but its caller."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OwnThread:
    """Makes blocking calls one at a time, apart from everybody else's: files that may be slow, and the like."""

    def __init__(self) -> None:
        self._call: asyncio.Task[object] | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, or raise what it raises; first wait for the call before it.

        May be cancelled: the call goes on, and the next one waits for it.
        """
        while self._call is not None and not self._call.done():
            await asyncio.wait({self._call})
        call = asyncio.create_task(in_own_thread(function, *args, **kwargs))
        self._call = call
        call.add_done_callback(_seen)
        return await asyncio.shield(call)


def _seen(call: "asyncio.Task[T]") -> None:
    """Take note of a failure that nobody waits for any more."""
    if not call.cancelled():
        call.exception()


async def in_own_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns, or raise what it raises.

    asyncio's own executor has a few threads for all, and a call that was given up keeps its thread. Callers bound how
    many calls they have under way; the thread of one that never returns ends with the process.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if ended.done():  # given up meanwhile
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
