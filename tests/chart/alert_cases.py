"""For each alert: what fires it, when it must not fire yet, and what must not fire it. Run by `make test-alerts`."""

from collections.abc import Mapping
from typing import Any

import msgspec

NAMESPACE, JOB = "prod", "tg-taskgate-metrics"
Series = dict[str, str]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A world, as series of one sample a minute, and whether an alert is silent and fires in it at these times."""

    name: str
    series: tuple[Series, ...]
    alert: str
    silent_at: str | None = None
    fires_at: str | None = None
    labels: Mapping[str, str] = {}


def series(metric: str, values: str, *, pod: str = "a", **labels: str) -> Series:
    """One series, as promtool's notation has it."""
    told = {"namespace": NAMESPACE, "job": JOB, "pod": pod} | labels
    return {
        "series": metric + "{" + ",".join(f'{key}="{value}"' for key, value in told.items()) + "}",
        "values": values,
    }


def durations(metric: str, *, quick: int, slow: int, **labels: str) -> tuple[Series, ...]:
    """A histogram: so many a minute take up to 0.1 s, and so many between that and 0.25 s."""
    counts = {"0.05": quick, "0.1": quick, "0.25": quick + slow, "0.5": quick + slow, "+Inf": quick + slow}
    return tuple(series(f"{metric}_bucket", f"0+{count}x60", le=le, **labels) for le, count in counts.items())


def _calls(result: str, values: str) -> Series:
    return series("taskgate_upstream_calls_total", values, app="shop", region="china", result=result)


def _requests(outcome: str, values: str) -> Series:
    return series("taskgate_caller_requests_total", values, caller="reports", app="shop", outcome=outcome)


def _answers(status: str, values: str) -> Series:
    return series("taskgate_requests_total", values, route="/tasks", method="GET", status=status, outcome="none")


SHOP = {"app": "shop"}
REPLICA = {"namespace": NAMESPACE, "job": JOB, "pod": "a"}
SLOTS = series("taskgate_slots", "5x60", app="shop")

CASES = (
    Case(
        name="no replica is there",
        series=(series("taskgate_ready", "1x5 _x55"),),
        alert="TaskgateDown",
        silent_at="8m",
        fires_at="20m",
    ),
    Case(
        name="one of two is not ready",
        series=(series("taskgate_ready", "0x60"), series("taskgate_ready", "1x60", pod="b")),
        alert="TaskgateDown",
        silent_at="20m",
    ),
    Case(
        name="only another release is there",
        series=(series("taskgate_ready", "1x60", namespace="other"),),
        alert="TaskgateDown",
        fires_at="20m",
    ),
    Case(
        name="a replica does not answer",
        series=(series("up", "1x5 0x55"),),
        alert="TaskgateReplicaUnseen",
        silent_at="9m",
        fires_at="20m",
        labels=REPLICA,
    ),
    Case(name="faults", series=(_answers("500", "0+6x60"),), alert="TaskgateFaults", silent_at="3m", fires_at="20m"),
    Case(name="no fault", series=(_answers("503", "0+6x60"),), alert="TaskgateFaults", silent_at="20m"),
    Case(
        name="all slots are used",
        series=(SLOTS, series("taskgate_worst_window_calls", "5x60", app="shop")),
        alert="TaskgateBudgetExceeded",
        silent_at="20m",
    ),
    Case(
        name="one call too many",
        series=(SLOTS, series("taskgate_worst_window_calls", "6x60", app="shop")),
        alert="TaskgateBudgetExceeded",
        fires_at="20m",
        labels=SHOP,
    ),
    Case(
        name="one of two replicas has stopped",
        series=(
            series("taskgate_calls_stopped", "0x60", app="shop"),
            series("taskgate_calls_stopped", "1x60", pod="b", app="shop"),
        ),
        alert="TaskgateCallsStopped",
        fires_at="20m",
        labels=SHOP,
    ),
    Case(
        name="a third of the calls fail",
        series=(_calls("ok", "0+200x60"), _calls("timeout", "0+100x60")),
        alert="TaskgateUpstreamFailing",
        silent_at="4m",
        fires_at="20m",
        labels=SHOP,
    ),
    Case(
        name="callers ask for what the upstream refuses",
        series=(_calls("ok", "0+200x60"), _calls("caller_fault", "0+100x60")),
        alert="TaskgateUpstreamFailing",
        silent_at="20m",
    ),
    Case(name="no call is made", series=(_calls("timeout", "7x60"),), alert="TaskgateUpstreamFailing", silent_at="20m"),
    Case(
        name="the upstream says too often",
        series=(_calls("throttled", "0x10 1+1x50"),),
        alert="TaskgateThrottled",
        silent_at="10m",
        fires_at="25m",
        labels=SHOP,
    ),
    Case(
        name="one of two replicas has lost Redis",
        series=(series("taskgate_redis_up", "1x60"), series("taskgate_redis_up", "0x60", pod="b")),
        alert="TaskgateRedisAway",
        fires_at="20m",
    ),
    Case(
        name="Redis is slow",
        series=durations("taskgate_redis_call_duration_seconds", quick=90, slow=10, op="script"),
        alert="TaskgateRedisSlow",
        silent_at="8m",
        fires_at="30m",
    ),
    Case(
        name="Redis is quick",
        series=durations("taskgate_redis_call_duration_seconds", quick=100, slow=0, op="script"),
        alert="TaskgateRedisSlow",
        silent_at="30m",
    ),
    Case(
        name="a tenth is refused",
        series=(_requests("hit", "0+90x60"), _requests("refused", "0+10x60")),
        alert="TaskgateCallersRefused",
        silent_at="8m",
        fires_at="30m",
        labels=SHOP,
    ),
    Case(
        name="few are refused",
        series=(_requests("hit", "0+98x60"), _requests("refused", "0+2x60")),
        alert="TaskgateCallersRefused",
        silent_at="30m",
    ),
    Case(
        name="the loop is late",
        series=durations("taskgate_event_loop_lag_seconds", quick=230, slow=10),
        alert="TaskgateLoopLate",
        silent_at="8m",
        fires_at="30m",
        labels={"pod": "a"},
    ),
    Case(
        name="a reload is refused",
        series=(series("taskgate_configuration_reloads_total", "0x10 1x50", result="refused"),),
        alert="TaskgateReloadRefused",
        silent_at="8m",
        fires_at="15m",
        labels=REPLICA | {"result": "refused"},
    ),
)


def as_promtool(case: Case, rule: Mapping[str, Any]) -> dict[str, Any]:
    """The case in the form of promtool's tests; what the alert says is left to the rule."""
    fires = [{"exp_labels": dict(case.labels) | rule["labels"]}]
    times = [(case.silent_at, []), (case.fires_at, fires)]
    return {
        "name": case.name,
        "interval": "1m",
        "input_series": list(case.series),
        "alert_rule_test": [
            {"eval_time": at, "alertname": case.alert, "exp_alerts": alerts} for at, alerts in times if at
        ],
    }
