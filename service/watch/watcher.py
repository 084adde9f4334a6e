"""One watcher of a list: determines what to send next from the last version sent and the current list."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice

from service.model.callers import Caller
from service.model.errors import TaskgateError, WaitTooLong
from service.model.streams import TaskFilter
from service.watch.changes import task_changes, with_changes
from service.watch.events import (
    EndEvent,
    IdentifiedEvent,
    ListedEvent,
    ResetEvent,
    StaleEvent,
    SyncedEvent,
    WatchEvent,
    WatchPosition,
    event_id,
    position_of,
)
from service.watch.feed import Feed, FeedState
from service.watch.versions import ListVersion

BATCH = 25
"""How many events are yielded at once: the most that a slow client keeps in memory, about 20 KiB."""

Batch = Sequence[IdentifiedEvent]


class Watcher:
    """Follows a feed. `current_caller` returns the caller, or raises if it may no longer read the list.

    A watcher keeps only the name of the last version sent: if a client is so slow that the feed has forgotten that
    version, it starts over.
    """

    def __init__(
        self,
        feed: Feed,
        only: TaskFilter,
        *,
        tag: str,
        clock: Callable[[], float],
        current_caller: Callable[[], Caller],
    ) -> None:
        self._current_caller = current_caller
        self._feed = feed
        self._only = only
        self._tag = tag
        self._clock = clock
        self._sent_version: str | None = None
        self._is_stale_sent = False

    async def ready(self, *, patience_s: float) -> FeedState:
        """Wait until the list is known. Raise the error that prevents it, or WaitTooLong."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + patience_s
        while (state := self._feed.state).version is None or state.ended is not None:
            if error := state.ended or state.error:
                raise error
            left_s = ends_s - loop.time()
            if left_s <= 0:
                raise WaitTooLong(place=1, estimate_s=0.0, patience_s=patience_s)
            await self._feed.after(state.serial, timeout_s=left_s)
        return state

    async def batches(self, *, last_id: str | None, idle_s: float) -> AsyncIterator[Batch]:
        """Yield the events to send next; an empty batch after `idle_s` without any, so that the connection stays in
        use.

        With `last_id`, the id of the last event that an earlier connection has received, only changes since then are
        sent, if that position is still known. The last batch holds an `EndEvent`.
        """
        held = await self._resume(last_id)
        self._sent_version = None if held is None else held.name
        if last_id and held is None:
            yield (self._with_id(ResetEvent()),)
        state, seen = self._feed.state, -1
        while True:
            try:
                self._current_caller()
            except TaskgateError as exc:
                yield (self._with_id(EndEvent(error=exc)),)
                return
            if state.serial != seen:
                for batch in self._updates(state):
                    yield batch
            else:
                yield ()
            if state.ended is not None:
                yield (self._with_id(EndEvent(error=state.ended)),)
                return
            seen = state.serial
            state = await self._feed.after(seen, timeout_s=idle_s)

    def _updates(self, state: FeedState) -> Iterator[Batch]:
        """Yield the changes from the last version sent to the current list."""
        version = state.version
        if version is not None and version.name != self._sent_version:
            if self._sent_version is None or self._feed.remembered(self._sent_version) is None:
                if self._sent_version is not None:
                    yield (self._with_id(ResetEvent()),)
                yield from self._whole(version)
            else:
                yield from self._changes(self._sent_version, version)
            self._sent_version = version.name
        if version is not None and not state.is_stale:
            self._is_stale_sent = False
            count = self._feed.count(version, self._only)
            age_s = max(self._clock() - state.as_of_ms / 1000, 0.0)
            synced = SyncedEvent(count=count, total=state.total, as_of_ms=state.as_of_ms, age_s=age_s)
            yield (self._with_id(synced),)
        elif state.is_stale and not self._is_stale_sent:
            self._is_stale_sent = True
            yield (self._with_id(StaleEvent(error=state.error, as_of_ms=state.as_of_ms)),)

    def _whole(self, version: ListVersion) -> Iterator[Batch]:
        unknown = event_id(self._tag, None)
        tasks = (task for task in version.tasks.values() if self._only.takes(task.labels))
        while batch := [IdentifiedEvent(id=unknown, event=ListedEvent(task=task)) for task in islice(tasks, BATCH)]:
            yield batch

    def _changes(self, base: str, version: ListVersion) -> Iterator[Batch]:
        steps = self._feed.changes(base, version.name, self._only)
        for start in range(0, len(steps), BATCH):
            yield [
                IdentifiedEvent(
                    id=event_id(self._tag, WatchPosition(target=version.name, base=base, done=done)), event=step
                )
                for done, step in enumerate(steps[start : start + BATCH], start + 1)
            ]

    def _with_id(self, event: WatchEvent) -> IdentifiedEvent:
        position = None if self._sent_version is None else WatchPosition(target=self._sent_version)
        return IdentifiedEvent(id=event_id(self._tag, position), event=event)

    async def _resume(self, last_id: str | None) -> ListVersion | None:
        """Return the watcher's position from the last event id that it received; None if that is unknown."""
        position = position_of(last_id or "", tag=self._tag)
        if position is None:
            return None
        held = await self._feed.find(position.target)
        if held is not None and position.base is not None:
            base = await self._feed.find(position.base)
            if base is None:
                return None
            steps = task_changes(base.tasks, held, self._only)[: position.done]
            held = ListVersion(with_changes(base.tasks, steps).values(), range_=held.range)
        if held is not None:
            await self._feed.remember(held)
        return held
