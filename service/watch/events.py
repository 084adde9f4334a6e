"""The events sent to a watcher, and the ids from which it can resume."""

import re
from zlib import crc32

import msgspec

from service.model.queries import Query
from service.model.streams import TaskFilter
from service.watch.changes import TaskChange
from service.watch.versions import WatchedTask


class ListedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A task of the current list, sent as part of the whole list."""

    task: WatchedTask


class SyncedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The watcher has the list as of `age_s` seconds ago: `count` tasks of `total` in the range."""

    count: int
    total: int
    as_of_ms: int
    age_s: float


class StaleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Renewal is failing: changes since `as_of_ms` are unknown. `error` says why, if this replica knows."""

    error: Exception | None
    as_of_ms: int


class ResetEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The watch can't be resumed: the whole list follows."""


class EndEvent(msgspec.Struct, frozen=True, kw_only=True):
    """No more events follow: `error` says why."""

    error: Exception


EVENT_NAMES = ("task", "added", "changed", "removed", "synced", "stale", "reset", "end")
"""The event names on the wire."""

WatchEvent = ListedEvent | TaskChange | SyncedEvent | StaleEvent | ResetEvent | EndEvent


class IdentifiedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its id."""

    id: str
    event: WatchEvent


class WatchPosition(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a watcher: at version `target`, or after `done` of the changes from `base` to it."""

    target: str
    base: str | None = None
    done: int = 0


_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})(?:-([0-9a-f]{16})-([0-9]{1,7}))?", re.ASCII)


def watch_tag(query: Query, only: TaskFilter) -> str:
    """Return 8 hex digits that distinguish the events of one list and filter from those of others."""
    return f"{crc32(msgspec.json.encode((query.app, query.identity, only))):08x}"


def event_id(tag: str, position: WatchPosition | None) -> str:
    """Return an event's id; without a position, one that a reconnect can't continue from."""
    if position is None:
        return f"{tag}-0"
    if position.base is None:
        return f"{tag}-{position.target}"
    return f"{tag}-{position.target}-{position.base}-{position.done}"


def position_of(text: str, *, tag: str) -> WatchPosition | None:
    """Parse an id that was sent earlier; return None for one of another list or format."""
    match = _ID.fullmatch(text)
    if match is None or match[1] != tag:
        return None
    return WatchPosition(target=match[2], base=match[3], done=int(match[4] or 0))
