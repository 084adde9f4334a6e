"""Calls for single tasks."""

from collections.abc import Callable
from typing import Protocol

from service.gateway.reported_call import ReportedCall
from service.http_client.connection import BeforeSend
from service.model.blocks import Block, CachedBlock, CacheKey, MissingTask, TaskKey, block_of_task
from service.model.tasks import Task
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTrace


class TaskUpstream(Protocol):
    """The upstream call; `service.upstream.client.UpstreamClient` is the real implementation."""

    async def get_task(
        self,
        app: UpstreamApp,
        task_id: int,
        *,
        before_send: BeforeSend,
        trace: CallTrace,
    ) -> Task | None:
        """Return the task with this id, or None if the app has none. Raise UpstreamError."""
        ...


class TaskCalls:
    """Implements `CallsUpstream` for one app's tasks. `clock` is the shared clock."""

    def __init__(self, app: UpstreamApp, upstream: TaskUpstream, *, clock: Callable[[], float]) -> None:
        self._app = app
        self._upstream = upstream
        self._clock = clock

    async def fetch(self, key: CacheKey, call: ReportedCall, *, seen: CachedBlock) -> Block | MissingTask:
        """Make one call."""
        del seen
        if not isinstance(key, TaskKey):
            raise TypeError(f"no task: {key}")
        with call.made() as (before_send, trace):
            task = await self._upstream.get_task(self._app, key.id, before_send=before_send, trace=trace)
        fetched_at_ms = int(self._clock() * 1000)
        if task is None:
            return MissingTask(fetched_at_ms=fetched_at_ms)
        return block_of_task(task, fetched_at_ms=fetched_at_ms)
