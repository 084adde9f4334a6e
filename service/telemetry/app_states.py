"""How each app is doing, as this replica sees it."""

from collections.abc import Iterator, Mapping
from typing import get_args

from prometheus_client.metrics_core import Metric

from service.gateway.served import ServedApp, ServedCall
from service.model.budgets import RecentCalls, ServingState
from service.telemetry.families import gauges
from service.telemetry.recent_calls import RecentAppCalls
from service.usage.app_condition import app_condition

STATES = tuple(state for state in get_args(ServingState) if state != "stale")
"""The states of `GET /budget`, except `stale`, which requires knowledge of all replicas."""


class AppStateCollector:
    """Collects the state and the last success of each app's calls of each kind."""

    def __init__(self, apps: Mapping[str, ServedApp], recent: RecentAppCalls) -> None:
        self._apps = apps
        self._recent = recent

    def collect(self) -> Iterator[Metric]:
        """Yield both."""
        rows: list[tuple[tuple[str, ...], float]] = []
        for call in (call for app in self._apps.values() for call in app.calls):
            now = _state_of(call, self._recent.of(call.app, call.kind))
            rows += [((call.app, call.kind.value, state), float(state == now)) for state in STATES]
        text = "1 for the state of the app's calls as this replica sees it, 0 for the others."
        yield gauges("taskgate_app_state", text, ("app", "call", "state"), rows)
        succeeded = [((name, kind.value), at_s) for (name, kind), at_s in self._recent.succeeded_at_s().items()]
        text = "Time of this replica's last successful call, in seconds since the epoch."
        yield gauges("taskgate_upstream_last_success_timestamp_seconds", text, ("app", "call"), succeeded)


def _state_of(served: ServedCall, recent: RecentCalls) -> ServingState:
    return app_condition(
        recent,
        stopped=served.fetching.stopped(),
        redis_away=served.is_cut_off,
        makes_calls=served.calls_alone is not None,
        pause_s=served.line.pause_s(),
        pause_reason="",
        stale_last_minute=0,
    ).state
