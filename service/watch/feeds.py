"""All watched lists of one replica, the bounds on watchers, and what each watch counts."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from service.model.callers import Caller
from service.model.errors import ShuttingDown, TooManyWatchers
from service.model.queries import Query
from service.model.streams import TaskFilter
from service.settings import WatchSettings
from service.usage.counts import AddToColumn
from service.watch.events import watch_tag
from service.watch.feed import ChunkSource, Feed, WatchPayer
from service.watch.version_store import VersionStore
from service.watch.watcher import Watcher

CountUsage = Callable[[str, int], None]
"""Adds to a column of `Counts` of one caller."""


class WatchCounter:
    """Counts one watch. Call `sent` at least every few seconds, so that its time counts in the right minute."""

    def __init__(self, events: Counter[str], usage: CountUsage, *, now_s: Callable[[], float]) -> None:
        """`events` counts the events of all watches by name; `now_s` returns the seconds of a monotonic clock."""
        self._events = events
        self._usage = usage
        self._now_s = now_s
        self._counted_until_s = now_s()
        usage("watches", 1)

    def sent(self, names: Sequence[str]) -> None:
        """Count the events that are being sent, none if only time has passed."""
        if names:
            self._events.update(names)
            self._usage("events", len(names))
            if resets := names.count("reset"):
                self._usage("resets", resets)
        if (whole_s := int(self._now_s() - self._counted_until_s)) > 0:
            self._counted_until_s += whole_s
            self._usage("watched_s", whole_s)


class Feeds:
    """Maps each watched query to its feed. `clock` is the clock of freshness, in seconds.

    `events` counts the events sent, by name.
    """

    def __init__(
        self,
        source: ChunkSource,
        store: VersionStore,
        *,
        settings: WatchSettings,
        block_size: int,
        clock: Callable[[], float],
        usage: Mapping[str, AddToColumn] | None = None,
    ) -> None:
        """`usage` counts for the callers of each app, by its name."""
        self.events: Counter[str] = Counter()
        self._source = source
        self._store = store
        self._settings = settings
        self._block_size = block_size
        self._clock = clock
        self._usage = usage or {}
        self._feeds: dict[Query, Feed] = {}
        self._watchers: Counter[str] = Counter()
        self._leaving = False

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def size_bytes(self) -> int:
        """The approximate memory of all watched lists."""
        return sum(feed.size_bytes for feed in self._feeds.values())

    @property
    def watchers(self) -> int:
        """The current number of watchers."""
        return self._watchers.total()

    @contextmanager
    def watcher(
        self, query: Query, only: TaskFilter, *, caller: Caller, current_caller: Callable[[], Caller]
    ) -> Iterator[Watcher]:
        """Watch a query while entered. Raise ShuttingDown and TooManyWatchers."""
        if self._leaving:
            raise ShuttingDown
        for bound, count in (
            (self._settings.watchers_max, self.watchers),
            (self._settings.caller_watchers_max, self._watchers[caller.name]),
        ):
            if count >= bound:
                raise TooManyWatchers(bound=bound)
        feed = self._feeds.get(query)
        if feed is None:
            feed = self._feeds[query] = self._feed(query)
        watcher = Watcher(
            feed,
            only,
            tag=watch_tag(query, only),
            clock=self._clock,
            current_caller=current_caller,
        )
        self._watchers[caller.name] += 1
        try:
            with feed.watched_by(WatchPayer(caller_name=caller.name, current_caller=current_caller)):
                yield watcher
        finally:
            self._watchers[caller.name] -= 1
            if not self._watchers[caller.name]:
                del self._watchers[caller.name]
            if not len(feed) and self._feeds.get(query) is feed:
                del self._feeds[query]

    def counter(self, app: str, caller: str) -> WatchCounter:
        """Return the counter of a watch that begins now."""
        count = self._usage.get(app)

        def usage(column: str, number: int) -> None:
            if count is not None:
                count(caller, column, number)

        return WatchCounter(self.events, usage, now_s=asyncio.get_running_loop().time)

    def begin_drain(self) -> None:
        """End all watches; the replica is shutting down, and another one can continue them."""
        self._leaving = True
        for feed in tuple(self._feeds.values()):
            feed.end(ShuttingDown())

    def _feed(self, query: Query) -> Feed:
        return Feed(
            self._source,
            self._store,
            query,
            block_size=self._block_size,
            blocks_max=self._settings.blocks_max,
            versions_max=self._settings.versions_max,
            make_room=self._make_room,
            clock=self._clock,
        )

    def _make_room(self) -> None:
        """While all lists together use too much memory, end the largest one of the caller whose lists use most.

        A list that several callers watch counts for each of them, and belongs to the one that uses least.
        """
        bound = self._settings.memory_bytes
        sizes = {feed: feed.size_bytes for feed in self._feeds.values()}
        while sum(sizes.values()) > bound:
            held: Counter[str] = Counter()
            for feed, size in sizes.items():
                held.update(dict.fromkeys(feed.callers, size))
            least = {feed: min((held[name] for name in feed.callers), default=math.inf) for feed in sizes}
            worst = max(sizes, key=lambda feed: (least[feed], sizes[feed]))
            worst.drop(TooManyWatchers(bound=bound, of="bytes of lists"))
            del sizes[worst]
