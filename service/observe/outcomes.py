"""How requests end, in the words of access log, metrics and usage."""

TASKS_ROUTE = "/tasks"
"""The route whose requests callers are charged for."""

REFUSED = frozenset(
    ("wait-too-long", "line-full", "too-many-watchers", "nothing-stored", "shutting-down", "no-fetch-now")
)
"""The problems that say: no fetch for this caller now. One for each subclass of `model.errors.Refused`."""

STREAMED = "streamed"
"""The outcome of a stream that has sent its last line."""
