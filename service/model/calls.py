"""The kinds of upstream calls."""

from enum import StrEnum


class CallKind(StrEnum):
    """One of the upstream's calls; the upstream limits each separately."""

    LIST = "list"
    """`list_sched_task`: a part of a list."""
    GET = "get"
    """`get_sched_task`: one task by its id."""

    @property
    def key_part(self) -> str:
        """The part of its keys of budget and usage in Redis that distinguishes them from other calls'.

        Keys of lists have none, so that they are shared with releases that know no other calls.
        """
        return "" if self is CallKind.LIST else f"{self}:"


def budget_name(app: str, kind: CallKind) -> str:
    """Return the name of the budget of an app's calls of this kind. Apps' names hold no slash."""
    return app if kind is CallKind.LIST else f"{app}/{kind}"
