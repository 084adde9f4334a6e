"""Scheduled push tasks as callers see them."""

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One scheduled push task. Times are RFC 3339 in UTC; `content` is the upstream's own JSON, untouched."""

    id: int
    type: str
    status: str
    title: str
    description: str
    created_at: str | None
    scheduled_at: str | None
    dispatched: bool
    dispatch_error: str | None
    push_task_id: str | None
    content: msgspec.Raw


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What one fetch brings: some tasks in order, and how many match the query in all."""

    total: int
    tasks: tuple[Task, ...]
