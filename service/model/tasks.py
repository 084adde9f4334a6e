"""Scheduled push tasks as callers see them."""

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One scheduled push task. Times are RFC 3339 in UTC; `content` is the upstream's own JSON, untouched.

    Null is what the upstream left out, gave as null, or gave in a form that can't be read. `id` fits 64 bits with sign.
    """

    id: int
    type: str | None
    status: str | None
    title: str | None
    description: str | None
    created_at: str | None
    scheduled_at: str | None
    dispatched: bool | None
    dispatch_error: str | None
    push_task_id: str | None
    content: msgspec.Raw


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one call: some tasks in order, and how many match the query in all.

    `left_out` counts records that can't be served because they have no id; `odd` counts deviations from what the
    upstream's page promises.
    """

    total: int
    tasks: tuple[Task, ...]
    left_out: int = 0
    odd: tuple[tuple[str, int], ...] = ()
