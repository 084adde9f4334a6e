"""The kinds of upstream calls."""

from enum import StrEnum


class CallKind(StrEnum):
    """One of the upstream's calls; the upstream limits each by itself."""

    LIST = "list"
    """`list_sched_task`: a part of a list."""
    GET = "get"
    """`get_sched_task`: one task by its id."""

    @property
    def key_part(self) -> str:
        """What tells the keys of its budget and usage in Redis from those of other calls.

        Those of lists bear no name: releases that know no other calls share them.
        """
        return "" if self is CallKind.LIST else f"{self}:"


def budget_name(app: str, kind: CallKind) -> str:
    """Return the name of the budget of an app's calls of this kind. Apps' names hold no slash."""
    return app if kind is CallKind.LIST else f"{app}/{kind}"
