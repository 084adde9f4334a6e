"""The kinds of upstream calls."""

from enum import StrEnum


class CallKind(StrEnum):
    """One of the upstream's calls; the upstream limits each by itself."""

    LIST = "list"
    """`list_sched_task`: a part of a list."""
    GET = "get"
    """`get_sched_task`: one task by its id."""
