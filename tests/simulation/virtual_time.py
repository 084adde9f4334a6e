"""An event loop in virtual time: whenever all tasks wait, the clock jumps to the next timer. No real waiting."""

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

OWNER: ContextVar["TaskOwner | None"] = ContextVar("OWNER", default=None)
"""Whose tasks are made in this context; tasks inherit it from those that make them."""


class TaskOwner:
    """The tasks of one process, which may die: all at once, with everything that they would begin afterwards."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.is_dead = False

    def add(self, task: asyncio.Task[Any]) -> None:
        """Own a task until it ends."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if self.is_dead:
            task.cancel()

    def kill(self) -> None:
        """Cancel all tasks at once, and prevent new ones."""
        self.is_dead = True
        for task in tuple(self.tasks):
            task.cancel()


class _Clock(selectors.SelectSelector):
    """Moves the time instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("all tasks wait, and nothing will ever happen")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0 and passes only while all tasks wait. No sockets, threads or processes."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self._clock_resolution = 1e-6
        self.set_task_factory(_owned_task)

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._clock.now_s


def _owned_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], *, context: Context | None = None, **named: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context, **named)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.add(task)
    return task


@contextlib.contextmanager
def owned_by(owner: TaskOwner) -> Iterator[None]:
    """Inside, tasks belong to the owner."""
    token = OWNER.set(owner)
    try:
        yield
    finally:
        OWNER.reset(token)


def run_in_virtual_time(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on a new loop."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(make())
