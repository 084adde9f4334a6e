"""The sandbox's control route: faults, tasks and counts, as JSON under `/sandbox/`. Unknown fields are rejected."""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta

from service.sandbox.faults import SandboxCall, SandboxFault
from service.sandbox.http1 import HttpResponse, SandboxRequest
from service.sandbox.listing import TASKS_MAX
from service.sandbox.tasks import SandboxTask
from service.sandbox.upstream import SandboxAppState, SandboxUpstream


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all bodies: an unknown field is an error."""


class AddTasks(_Strict, frozen=True, kw_only=True):
    """Tasks to add to an app's list; one with a known id replaces that one."""

    sdkappid: int
    tasks: Annotated[tuple[SandboxTask, ...], Meta(max_length=10_000)]


class RemoveTasks(_Strict, frozen=True, kw_only=True):
    """Ids of tasks to remove from an app's list."""

    sdkappid: int
    ids: Annotated[tuple[int, ...], Meta(max_length=TASKS_MAX)]


class ResizeTasks(_Strict, frozen=True, kw_only=True):
    """The new length of an app's list."""

    sdkappid: int
    total: Annotated[int, Meta(ge=0, le=TASKS_MAX)]


class AppStats(_Strict, frozen=True, kw_only=True):
    """One app's calls of one kind since the start or the last reset.

    Times are in milliseconds of the sandbox's monotonic clock.
    """

    name: str
    sdkappid: int
    call: SandboxCall
    calls: int
    refused: int
    worst_window: int
    arrivals_ms: tuple[float, ...]


class SandboxStats(_Strict, frozen=True, kw_only=True):
    """All calls. `refused` counts those over the limit, `strays` those that named no app of the sandbox, or no call.

    `worst_window` is the worst of any app and kind of call; `apps` has an entry for each app and kind.
    """

    calls: int
    refused: int
    strays: int
    worst_window: int
    apps: tuple[AppStats, ...]

    def of(self, sdkappid: int, call: SandboxCall = "list") -> AppStats:
        """Return one app's calls of one kind. Raise KeyError if the sandbox has no such app."""
        for app in self.apps:
            if (app.sdkappid, app.call) == (sdkappid, call):
                return app
        raise KeyError(sdkappid)


class AppTasks(_Strict, frozen=True, kw_only=True):
    """The number of tasks in an app's list."""

    name: str
    sdkappid: int
    tasks: int


class _RequestRefused(Exception):
    """A control request that can't be executed."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class SandboxControl:
    """Executes the control requests of tests and people."""

    def __init__(self, upstream: SandboxUpstream) -> None:
        self._upstream = upstream
        self._routes: dict[str, dict[str, Callable[[SandboxRequest], object]]] = {
            "/sandbox/stats": {"GET": self._stats, "DELETE": self._reset},
            "/sandbox/faults": {"GET": self._armed, "POST": self._arm, "DELETE": self._disarm},
            "/sandbox/tasks": {"GET": self._counts, "POST": self._add, "PUT": self._resize, "DELETE": self._remove},
        }

    def handle(self, request: SandboxRequest) -> HttpResponse:
        """Execute one control request."""
        try:
            result = self._dispatch(request)
        except _RequestRefused as refusal:
            return HttpResponse(status=refusal.status, body=msgspec.json.encode({"error": str(refusal)}))
        return HttpResponse(body=msgspec.json.encode(result))

    def _dispatch(self, request: SandboxRequest) -> object:
        methods = self._routes.get(request.path)
        if methods is None:
            raise _RequestRefused(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._routes)}")
        handler = methods.get(request.method)
        if handler is None:
            raise _RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} supports {', '.join(methods)}")
        known = ("sdkappid", "window_ms") if request.path == "/sandbox/stats" else ()
        for name, _ in request.parameters:
            if name not in known:
                raise _RequestRefused(HTTPStatus.BAD_REQUEST, f"unknown parameter `{name}`")
        try:
            return handler(request)
        except (msgspec.DecodeError, ValueError) as exc:
            raise _RequestRefused(HTTPStatus.BAD_REQUEST, str(exc)) from exc

    def stats(self, *, sdkappid: int | None = None, window_ms: float | None = None) -> SandboxStats:
        """Return counts and arrival times of one app or all, and the worst window, of the limit's length or another."""
        selected = [state for number, state in self._upstream.apps.items() if sdkappid in (None, number)]
        apps = tuple(
            AppStats(
                name=state.app.name,
                sdkappid=state.app.sdkappid,
                call=call,
                calls=arrivals.count,
                refused=arrivals.refused,
                worst_window=arrivals.worst(window_ms),
                arrivals_ms=arrivals.kept_ms,
            )
            for state in selected
            for call, arrivals in state.arrivals.items()
        )
        return SandboxStats(
            calls=sum(app.calls for app in apps) + self._upstream.strays,
            refused=sum(app.refused for app in apps),
            strays=self._upstream.strays,
            worst_window=max((app.worst_window for app in apps), default=0),
            apps=apps,
        )

    def _stats(self, request: SandboxRequest) -> SandboxStats:
        parameters = dict(request.parameters)
        return self.stats(
            sdkappid=int(parameters["sdkappid"]) if "sdkappid" in parameters else None,
            window_ms=float(parameters["window_ms"]) if "window_ms" in parameters else None,
        )

    def _reset(self, _: SandboxRequest) -> SandboxStats:
        self._upstream.reset_arrivals()
        return self.stats()

    def _armed(self, _: SandboxRequest | None = None) -> tuple[SandboxFault, ...]:
        return self._upstream.faults.armed

    def _arm(self, request: SandboxRequest) -> tuple[SandboxFault, ...]:
        self._upstream.faults.add(msgspec.json.decode(request.body, type=SandboxFault))
        return self._armed()

    def _disarm(self, _: SandboxRequest) -> tuple[SandboxFault, ...]:
        self._upstream.faults.clear()
        return self._armed()

    def _counts(self, _: SandboxRequest) -> tuple[AppTasks, ...]:
        return tuple(_count(state) for state in self._upstream.apps.values())

    def _add(self, request: SandboxRequest) -> AppTasks:
        body = msgspec.json.decode(request.body, type=AddTasks)
        for task in body.tasks:
            _check_moments(task)
        state = self._state(body.sdkappid)
        # a Raw keeps the whole body alive: copy only the content
        state.tasks.add(msgspec.structs.replace(task, content=task.content.copy()) for task in body.tasks)
        return _count(state)

    def _resize(self, request: SandboxRequest) -> AppTasks:
        body = msgspec.json.decode(request.body, type=ResizeTasks)
        state = self._state(body.sdkappid)
        state.tasks.resize(body.total)
        return _count(state)

    def _remove(self, request: SandboxRequest) -> AppTasks:
        body = msgspec.json.decode(request.body, type=RemoveTasks)
        state = self._state(body.sdkappid)
        state.tasks.remove(body.ids)
        return _count(state)

    def _state(self, sdkappid: int) -> SandboxAppState:
        state = self._upstream.apps.get(sdkappid)
        if state is None:
            raise ValueError(f"no app has the sdkappid {sdkappid}")
        return state


def _count(state: SandboxAppState) -> AppTasks:
    return AppTasks(name=state.app.name, sdkappid=state.app.sdkappid, tasks=len(state.tasks))


def _check_moments(task: SandboxTask) -> None:
    for name in ("created_s", "scheduled_s"):
        try:
            datetime.fromtimestamp(getattr(task, name), tz=UTC)
        except (OverflowError, OSError, ValueError) as exc:
            raise ValueError(f"`{name}` of task {task.id} is outside the calendar") from exc
