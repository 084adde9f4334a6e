"""The units of fetching, storing and joining: a block of a list, or a task by its id."""

import msgspec

from service.model.queries import Query


class BlockKey(msgspec.Struct, frozen=True, kw_only=True):
    """The block of a query's list with this index, counted from 0."""

    query: Query
    index: int

    @property
    def app(self) -> str:
        """The app that is called for it."""
        return self.query.app


class TaskKey(msgspec.Struct, frozen=True, kw_only=True):
    """One task of an app, by its id."""

    app: str
    id: int


CacheKey = BlockKey | TaskKey
