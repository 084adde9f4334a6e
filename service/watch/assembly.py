"""Assembles a version of a list from its blocks, which are fetched one after the other while the list may shift."""

from collections.abc import Sequence

import msgspec

from service.model.pages import Chunk
from service.model.queries import Query
from service.watch.versions import ListVersion, WatchedTask, watched_task


class AssembledList(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one pass over all blocks. `missing` are tasks kept in `version` that the pass did not find."""

    version: ListVersion
    missing: frozenset[int] = frozenset()


def assemble(chunks: Sequence[Chunk], *, query: Query, last: AssembledList | None, is_new: bool) -> AssembledList:
    """Put the blocks of one pass together; `last` is the pass before, `is_new` whether a block was fetched since.

    A list that shifts while its blocks are fetched can hide a task between two of them. So a task of a list with
    several blocks counts as removed only when two consecutive passes have missed it, the second with newer blocks. For
    a task that occurs in two blocks, the newer one counts. Tasks that have not changed are the same objects as before.
    """
    known = {} if last is None else last.version.tasks
    tasks: dict[int, WatchedTask] = {}
    fetched_at_ms: dict[int, int] = {}
    for chunk in chunks:
        for record in chunk.records:
            task = watched_task(record, sort=query.sort, known=known)
            id_ = task.labels.id
            if fetched_at_ms.get(id_, -1) < chunk.fetched_at_ms:
                tasks[id_] = task
                fetched_at_ms[id_] = chunk.fetched_at_ms
    missing = frozenset(known.keys() - tasks.keys())
    if last is not None and len(chunks) > 1:
        missing -= last.missing if is_new else frozenset()
        tasks |= {id_: known[id_] for id_ in missing}
    else:
        missing = frozenset()
    return AssembledList(version=ListVersion(tasks.values(), range_=chunks[-1].range), missing=missing)
